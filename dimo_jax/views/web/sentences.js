// Finds the known sentences that share the most telling words with one that is typed: tf-idf of word stems.

const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]/u;
const WORDS = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]|[\p{L}\p{N}]+/gu;
// Said of every motion, so that they tell none apart.
const COMMON = new Set("a an and are as at by character does for from he her his in is it its of on one out she someone "
  .concat("that the their then they this to up with while figure person").split(" "));

// What is left of an English word without its commonest endings: "jumping", "jumps" and "jumped" are one.
function stem(word) {
  let w = word;
  if (w.length > 4 && w.endsWith("ies")) w = `${w.slice(0, -3)}y`;
  else if (w.length > 3 && w.endsWith("s") && !w.endsWith("ss")) w = w.slice(0, -1);
  if (w.length > 5 && w.endsWith("ing")) w = w.slice(0, -3);
  else if (w.length > 4 && w.endsWith("ed")) w = w.slice(0, -2);
  else if (w.length > 4 && w.endsWith("ly")) w = w.slice(0, -2);
  if (w.length > 3 && w.endsWith("e")) w = w.slice(0, -1);
  if (w.length > 3 && w.at(-1) === w.at(-2) && /[bdgmnpt]/.test(w.at(-1))) w = w.slice(0, -1); // runn, clapp
  return w;
}

function splitWords(text) {
  const words = text.normalize("NFKC").toLowerCase().match(WORDS) ?? [];
  return words.filter((word) => !COMMON.has(word)).map((word) => (UNSPACED.test(word) ? word : stem(word)));
}

// `known` are texts; the result finds the best few for another: [index, similarity 0..1], the best first.
function makeFinder(known) {
  const split = known.map(splitWords), counts = new Map();
  for (const words of split) for (const word of new Set(words)) counts.set(word, (counts.get(word) ?? 0) + 1);
  const weigh = (words) => {
    const vector = new Map();
    for (const word of words) {
      const rarity = Math.log((1 + known.length) / (1 + (counts.get(word) ?? 0))) + 1;
      vector.set(word, (vector.get(word) ?? 0) + rarity);
    }
    const length = Math.hypot(...vector.values()) || 1;
    for (const [word, value] of vector) vector.set(word, value / length);
    return vector;
  };
  const vectors = split.map(weigh);
  return (text) => {
    const asked = weigh(splitWords(text));
    const scores = vectors.map((vector, index) => {
      let sum = 0;
      for (const [word, value] of asked) sum += value * (vector.get(word) ?? 0);
      return [index, sum];
    });
    return scores.filter(([, score]) => score > 0).sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  };
}
