"""Slow, obvious twins: what the package does fast or in parts stands here as a person would write it down.

Nothing here imports ulmpipe: a twin that shares code with what it checks checks nothing.
"""

import html
import re
from typing import Any

import numpy as np

# ---- kernels --------------------------------------------------------------------------------------------------------


def fill_windows(segments, doc_segment, doc_begin, order, cum, positions, out) -> None:
    """Put the whole stream together, token by token, and cut the windows out of it."""
    stream: list[int] = []
    for place, doc in enumerate(order):
        for k in range(cum[place + 1] - cum[place]):
            stream.append(int(segments[doc_segment[doc]][doc_begin[doc] + k]))
    for b in range(len(positions)):
        for t in range(out.shape[1]):
            out[b, t] = stream[positions[b] + t]


def fill_documents(segments, doc_segment, doc_begin, doc_length, docs, out, lengths) -> None:
    """Cut each document to its two ends and write it over the padding."""
    for b, doc in enumerate(docs):
        tokens = [int(segments[doc_segment[doc]][doc_begin[doc] + k]) for k in range(doc_length[doc])]
        if len(tokens) > out.shape[1]:
            n_head = out.shape[1] // 2
            n_tail = out.shape[1] - n_head
            tokens = tokens[:n_head] + tokens[len(tokens) - n_tail :]
        for t, token in enumerate(tokens):
            out[b, t] = token
        lengths[b] = len(tokens)


def chunks_and_gaps(text: str) -> list[tuple[str, str]]:
    """What spaCy's tokenizer cuts a text into, with its ends; a gap of one space is no token."""
    if not text.strip():
        return [("blank", text)]
    runs = re.findall(r"\s+|\S+", text)
    begin = runs.pop(0) if runs[0].isspace() else ""
    end = runs.pop() if runs[-1].isspace() else ""
    kinds = [("gap" if run.isspace() else "chunk", run) for run in runs]
    return [("begin", begin), *(part for part in kinds if part != ("gap", " ")), ("end", end)]


# ---- batching -------------------------------------------------------------------------------------------------------


def lm_batches(docs: list[list[int]], order: list[int], batch_size: int, bptt: int) -> list[tuple[Any, Any]]:
    """The whole corpus in one array, reshaped to (B, L), and its neighbour one token later; cut at every `bptt`."""
    stream = np.array([token for doc in order for token in docs[doc]], np.int64)
    batch_size = min(batch_size, len(stream) - 1)
    length = (len(stream) - 1) // batch_size
    x = stream[: batch_size * length].reshape(batch_size, length)
    y = stream[1 : batch_size * length + 1].reshape(batch_size, length)
    return [(x[:, t : t + bptt], y[:, t : t + bptt]) for t in range(0, length, bptt)]


# ---- fast.ai's lesson 12, nbs/dl2/12_text.ipynb ---------------------------------------------------------------------


def lesson_fixup(x: str) -> str:
    x = x.replace("#39;", "'").replace("amp;", "&").replace("#146;", "'").replace("nbsp;", " ")
    x = x.replace("#36;", "$").replace("\\n", "\n").replace("quot;", "'").replace("<br />", "\n")
    x = x.replace('\\"', '"').replace("<unk>", "xxunk").replace(" @.@ ", ".").replace(" @-@ ", "-")
    x = x.replace("\\", " \\ ")
    return one_space(html.unescape(x))


def one_space(x: str) -> str:
    while "  " in x:
        x = x.replace("  ", " ")
    return x


def repeated_characters(x: str, at_least: int) -> str:
    out, i = "", 0
    while i < len(x):
        n = 1
        while i + n < len(x) and x[i + n] == x[i]:
            n += 1
        out += f" xxrep {n} {x[i]} " if n >= at_least and not x[i].isspace() else x[i] * n
        i += n
    return out


def lesson_repeated_words(x: str) -> str:
    def say(m):
        word, words = m.groups()
        return f" xxwrep {len(words.split()) + 1} {word} "

    return re.sub(r"(\b\w+\W+)(\1{3,})", say, x)


def spaces_around(x: str, characters: str) -> str:
    return "".join(f" {c} " if c in characters else c for c in x)


def course_text(x: str) -> str:
    """Lesson 12's pre rules, in order."""
    x = lesson_fixup(x)
    x = repeated_characters(x, 4)
    x = lesson_repeated_words(x)
    x = spaces_around(x, "/#")
    x = one_space(x)
    return re.sub(r"<\s*br\s*/?>", "\n", x, flags=re.IGNORECASE)


def course_tokens(tokens: list[str]) -> list[str]:
    """Lesson 12's post rules, in order: capitals, words in capitals (which finds none any more), begin and end."""
    lowered: list[str] = []
    for t in tokens:
        if t == "":
            continue
        if t[0].isupper() and len(t) > 1 and t[1:].islower():
            lowered.append("xxmaj")
        lowered.append(t.lower())
    said: list[str] = []
    for t in lowered:
        if t.isupper() and len(t) > 1:
            said.append("xxup")
            said.append(t.lower())
        else:
            said.append(t)
    return ["xxbos"] + said + ["xxeos"]


# ---- fastai 2.8.12, text/core.py ------------------------------------------------------------------------------------


def fastai2_text(x: str) -> str:
    """fastai 2's `defaults.text_proc_rules`, in order."""
    x = x.replace("#39;", "'").replace("amp;", "&").replace("#146;", "'").replace("nbsp;", " ")
    x = x.replace("#36;", "$").replace("\\n", "\n").replace("quot;", "'").replace("<br />", "\n")
    x = x.replace('\\"', '"').replace("<unk>", "xxunk").replace(" @.@ ", ".").replace(" @-@ ", "-")
    x = html.unescape(x.replace("...", " …"))
    x = repeated_characters(x, 3)

    def say_words(m):
        word, words, end = m.groups()
        return f" xxwrep {len(words.split()) + 2} {word} {end}"

    x = re.sub(r"(?:\s|^)(\w+)\s+((?:\1\s+)+)\1(\s|\W|$)", say_words, x)
    x = one_space(spaces_around(x, "/#\\"))

    def say_capitals(m):
        before, word, _ = m.groups()
        return before + ("xxup " if len(word) > 1 else "") + word.lower()

    def say_capital(m):
        before, word, _ = m.groups()
        return before + ("xxmaj " if len(word) > 1 else "") + word.lower()

    x = re.sub(r"(\s|^)([A-Z]+[^a-z\s]*)(?=(\s|$))", say_capitals, x)
    x = re.sub(r"(\s|^)([A-Z][^A-Z\s]*)(?=(\s|$))", say_capital, x)
    return "xxbos " + x.lower().strip()


def fastai2_tokens(tokens: list[str]) -> list[str]:
    """fastai 2's `defaults.text_postproc_rules`."""
    return [t.replace(" ", "▁") for t in tokens]


# ---- pictures -------------------------------------------------------------------------------------------------------


def crop_resize(pictures, boxes, flips, gains, shifts, size):
    """Each output pixel on its own: all pixels of the picture, weighted by a triangle around the place it comes from."""
    side = pictures.shape[1]
    out = np.zeros((len(pictures), size, size, 3))
    for b, picture in enumerate(pictures.astype(np.float64)):
        top, left, height, width = (float(edge) for edge in boxes[b])
        for y in range(size):
            rows = triangle(top + (y + 0.5) * height / size, height / size, side)
            for x in range(size):
                columns = triangle(left + (x + 0.5) * width / size, width / size, side)
                value = sum(rows[i] * columns[j] * picture[i, j] for i in range(side) for j in range(side))
                out[b, y, size - 1 - x if flips[b] else x] = value * gains[b] + shifts[b]
    return out


def triangle(center: float, scale: float, side: int) -> list[float]:
    weights = [max(0.0, 1 - abs(pixel + 0.5 - center) / max(1.0, scale)) for pixel in range(side)]
    return [weight / sum(weights) for weight in weights]


def lesson_label_smoothing(pred, target, eps: float, reduction: str):
    """fast.ai's lesson 10b: lin_comb(sum(-logp) / C, nll, eps). Arrays of numpy."""
    log_p = pred - np.log(np.exp(pred).sum(1, keepdims=True))
    uniform = -log_p.sum(1) / pred.shape[1]
    nll = -log_p[np.arange(len(target)), target]
    loss = eps * uniform + (1 - eps) * nll
    return {"mean": loss.mean(), "sum": loss.sum(), "none": loss}[reduction]


def xresnet_parameters(blocks: list[int], expansion: int, stem: list[int], c_out: int) -> int:
    """Weights of every convolution, two numbers a channel of every batch norm, and the linear layer with its bias."""

    def conv_and_norm(n_in: int, n_out: int, kernel: int) -> int:
        return n_in * n_out * kernel * kernel + 2 * n_out

    total, n_in = 0, 3
    for width in stem:
        total += conv_and_norm(n_in, width, 3)
        n_in = width
    for n_blocks, width in zip(blocks, [64, 128, 256, 512], strict=True):
        for _ in range(n_blocks):
            n_out = width * expansion
            if expansion == 1:
                total += conv_and_norm(n_in, width, 3) + conv_and_norm(width, width, 3)
            else:
                total += conv_and_norm(n_in, width, 1) + conv_and_norm(width, width, 3) + conv_and_norm(width, n_out, 1)
            if n_in != n_out:
                total += conv_and_norm(n_in, n_out, 1)
            n_in = n_out
    return total + n_in * c_out + c_out


def ngram_logits(ids: list[int], table, bias, vocab_size: int, n_specials: int) -> list[float]:
    """The rows of all words and pairs of a document, each once, added up and divided by the root of their last numbers."""
    ids = [i for i in ids if i >= n_specials]
    n_buckets = len(table) - vocab_size
    rows = set(ids) | {
        (a * 1_640_531_527 + b * 1_013_904_223) % (2**31 - 1) % n_buckets + vocab_size
        for a, b in zip(ids, ids[1:], strict=False)
    }
    total = np.zeros(table.shape[1])
    for row in rows:
        total += np.asarray(table[row])
    return (total[:-1] / np.sqrt(max(total[-1], 1e-12)) + np.asarray(bias)).tolist()
