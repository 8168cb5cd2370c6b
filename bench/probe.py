"""One request by itself."""

import http.client

from mlaas.load.exchange import Exchange

_TIMEOUT_S = 30.0


def answers(asked: Exchange) -> bool:
    """Whether the right answer comes; by then, whatever came before and is answered in turn has been, too."""
    head, _, content = asked.request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    connection = http.client.HTTPConnection(headers["Host"], timeout=_TIMEOUT_S)
    try:
        connection.request("POST", first.split()[1], content, headers)
        answer = connection.getresponse()
        return answer.status == 200 and asked.expected in answer.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
