#!/bin/bash
# langchain-text-splitters 1.1.3: with a length in tokens, add_start_index gives -1 for half of the chunks, or a wrong
# place.
#
# Guess: start_index is where a chunk begins in the text, since each chunk is a piece of it, whether chunk_size counts
# letters or tokens.
# Seen: with letters, so. With a length_function that counts words the search for a chunk starts at the last chunk's end
# less the overlap, of which 4 are words and are taken for letters. The chunk began before that, so it isn't found: -1;
# or, where the text repeats itself, it is found further on, which no check shows. chunk_overlap=0 is right.
#
# Where it matters: citations and highlighting by start_index; tokens are the usual measure (from_tiktoken_encoder and
# from_huggingface_tokenizer go the same way). In Python text[-1:] is no error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check langchain-text-splitters==1.1.3 langchain-core==1.8.3
cat > "$folder/ask.py" <<'PYTHON'
from langchain_text_splitters import RecursiveCharacterTextSplitter


def words(text):
    return len(text.split())


plain = " ".join(f"item {i} is number {i * i} of the long list." for i in range(40))
again = " ".join(f"{'abcdefg'[i % 7]} and some" for i in range(60))
for name, text in {"plain": plain, "repeating": again}.items():
    for unit, length, size, overlap in [("letters", len, 60, 20), ("words", words, 12, 4), ("words", words, 12, 0)]:
        splitter = RecursiveCharacterTextSplitter(
            chunk_size=size, chunk_overlap=overlap, length_function=length, add_start_index=True
        )
        chunks = splitter.create_documents([text])
        starts, covered = [chunk.metadata["start_index"] for chunk in chunks], set()
        for start, chunk in zip(starts, chunks):
            if start >= 0:
                covered |= set(range(start, start + len(chunk.page_content) + 1))
        share = len(covered & set(range(len(text)))) / len(text)
        print(f"{name}, {unit}, overlap {overlap}: {starts.count(-1)} of {len(starts)} are -1", end=", ")
        print(f"the first at {starts[:4]}, {share:.0%} of the text is covered")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="plain, letters, overlap 20: 0 of 40 are -1, the first at [0, 42, 81, 118], 100% of the text is covered
plain, words, overlap 4: 22 of 45 are -1, the first at [0, -1, 63, -1], 76% of the text is covered
plain, words, overlap 0: 0 of 30 are -1, the first at [0, 47, 96, 148], 100% of the text is covered
repeating, letters, overlap 20: 0 of 16 are -1, the first at [0, 44, 83, 123], 100% of the text is covered
repeating, words, overlap 4: 3 of 22 are -1, the first at [0, 105, 211, 319], 84% of the text is covered
repeating, words, overlap 0: 0 of 15 are -1, the first at [0, 44, 88, 132], 100% of the text is covered"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
