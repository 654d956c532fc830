"""How an answer is to be saved as a file: the header Content-Disposition.

It refuses names that could end the header. What else is wrong with a name (a path, a device) is
for who saves the file to see, as RFC 6266, 4.3 asks of it.

Source: RFC 6266; RFC 8187 for names that are not ASCII.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from notebook_rpc.errors import InvalidParams

# What a reader may get wrong between quotes: RFC 6266, appendix D.
_NOT_PLAIN = re.compile(r'[^ -~]|["\\%]')
# RFC 8187's attr-char, of which quote() never escapes letters, digits and "_.-~".
_SAFE = "!#$&+^`|"


def attachment(filename: str) -> bytes:
    """
    Raises:
        InvalidParams: a control character, or half of a surrogate pair, is in the name, or
            nothing is.
    """
    if not filename.strip() or not filename.isprintable():
        raise InvalidParams("a file's name must be one line of printable characters")
    plain = _NOT_PLAIN.sub("_", filename)
    value = f'attachment; filename="{plain}"'
    if plain != filename:
        value += f"; filename*=UTF-8''{quote(filename, safe=_SAFE)}"
    return value.encode()
