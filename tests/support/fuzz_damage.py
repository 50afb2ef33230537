"""Files that were damaged on the way: what the fuzz harnesses draw."""

import struct

from hypothesis import strategies as st


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """A file with bytes changed, cut out, put in, or taken from another one."""
    content = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 6))):
        if not content:
            break
        at = draw(st.integers(0, len(content) - 1))
        near = min(at, draw(st.integers(0, 64)))  # heads matter most
        at = draw(st.sampled_from((at, near)))
        match draw(st.sampled_from(("byte", "number", "cut", "end", "insert", "splice"))):
            case "byte":
                content[at] = draw(st.integers(0, 255))
            case "number":
                number = draw(st.sampled_from((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)))
                content[at : at + 4] = struct.pack(draw(st.sampled_from("<>")) + "I", number)
            case "cut":
                del content[at : at + draw(st.integers(1, 40))]
            case "end":
                del content[at:]
            case "insert":
                content[at:at] = draw(st.binary(max_size=40))
            case "splice":
                content[at:] = draw(whole)[at:]
    return bytes(content)
