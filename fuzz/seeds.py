"""Seeds between one text file (a line an input, see src/seeds.rs) and a folder of libFuzzer's.

usage: seeds.py unpack FILE FOLDER | pack FILE FOLDER
"""

import hashlib
import pathlib
import sys


def escape(data: bytes) -> str:
    if not data:
        return "\\"
    named = {9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 39: "\\'", 92: "\\\\"}
    text = "".join(
        named.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in data
    )
    return "\\x23" + text[1:] if text.startswith("#") else text


def unescape(line: str) -> bytes:
    return b"" if line == "\\" else line.encode().decode("unicode_escape").encode("latin-1")


def main() -> None:
    what, file, folder = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    lines = file.read_text().splitlines()
    if what == "unpack":
        for line in lines:
            if line and not line.startswith("#"):
                data = unescape(line)
                (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)
        return
    # Written by hand and above the mark: kept as it is.
    mark = "# Found by fuzzing; the smallest set of short inputs with the same coverage (fuzz/run TARGET keep)."
    by_hand = lines[: lines.index(mark)] if mark in lines else lines
    known = {unescape(line) for line in by_hand if line and not line.startswith("#")}
    found = sorted({path.read_bytes() for path in folder.iterdir()} - known, key=lambda data: (len(data), data))
    file.write_text("\n".join([*by_hand, mark, *map(escape, found)]) + "\n")


main()
