#!/bin/bash
# tantivy 0.27.0: a word of 40 bytes isn't found in the text where it stands: 20 Russian letters, 14 of Hindi, a
# commit's hash.
#
# Guess: add_text_field(name) keeps each word of the text, so a document is found by any of its words, in any language.
# Seen: the default way of cutting drops words of 40 bytes of UTF-8 or more, in the document and in the query, without a
# word. A query of such a word alone is a query of nothing; in a phrase it is a gap that any word fills: "digest", the
# hash, "of" finds every digest. The Rust documentation has a page on this filter; the Python package's docstring says
# that "default" makes lower case. An analyzer of one's own has no limit.
#
# Where it matters: search by words, alone or beside vectors: hashes (SHA-1 has 40 letters, SHA-256 64), keys and
# chemical names can't be found, long German compounds and quite usual Russian words can't, and of a Thai, Chinese or
# Japanese text, which has no spaces, most clauses can't.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check tantivy==0.27.0
cat > "$folder/ask.py" <<'PYTHON'
import tantivy

words = {  # one word each
    "39 letters": "a" * 39, "SHA-1": "a" * 40, "SHA-256": "a" * 64, "Russian, 19 letters": "автоматизированного",
    "Russian, 21 letters": "достопримечательности", "Hindi, 13": "क" * 13, "Hindi, 14": "क" * 14,
}
analyzer = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple()).filter(tantivy.Filter.lowercase()).build()
for name in ("default", "own"):
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("text", tokenizer_name=name)
    index = tantivy.Index(builder.build())
    if name == "own":
        index.register_tokenizer(name, analyzer)
    writer = index.writer()
    for word in words.values():
        writer.add_document(tantivy.Document(text=f"digest {word} of the file"))
    writer.commit()
    index.reload()
    for kind, word in words.items():
        found = [
            len(index.searcher().search(index.parse_query(query, ["text"]), 10).hits)
            for query in (word, f'"digest {word} of"')
        ]
        print(f"{name}: {kind}, {len(word.encode())} bytes: by the word {found[0]} found, by the phrase {found[1]}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="default: 39 letters, 39 bytes: by the word 1 found, by the phrase 1
default: SHA-1, 40 bytes: by the word 0 found, by the phrase 7
default: SHA-256, 64 bytes: by the word 0 found, by the phrase 7
default: Russian, 19 letters, 38 bytes: by the word 1 found, by the phrase 1
default: Russian, 21 letters, 42 bytes: by the word 0 found, by the phrase 7
default: Hindi, 13, 39 bytes: by the word 1 found, by the phrase 1
default: Hindi, 14, 42 bytes: by the word 0 found, by the phrase 7
own: 39 letters, 39 bytes: by the word 1 found, by the phrase 1
own: SHA-1, 40 bytes: by the word 1 found, by the phrase 1
own: SHA-256, 64 bytes: by the word 1 found, by the phrase 1
own: Russian, 19 letters, 38 bytes: by the word 1 found, by the phrase 1
own: Russian, 21 letters, 42 bytes: by the word 1 found, by the phrase 1
own: Hindi, 13, 39 bytes: by the word 1 found, by the phrase 1
own: Hindi, 14, 42 bytes: by the word 1 found, by the phrase 1"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
