"""What people look at: report, plots, drawings, videos, the viewer."""
