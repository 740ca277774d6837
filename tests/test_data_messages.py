"""Text messages from a small file in the format of the package's, faults included."""

import zlib

import numpy as np
import pytest

from fsparse.data import hash_char_ngrams, hash_words, load, messages, packages

# Of "say ""hi"" now", the program that wrote the file took all up to the next quotation
# mark for one text: the messages between them are part of it, with names of labels.
WHOLE = """,spam,text
0,0,see you at five
1,1,"WIN a prize, call 0900 now"
2,0,"say ""hi"" now
ham\tok
spam\tFREE ringtone, text YES to 80800
ham\tsee you at five
ham\ttwo ""quoted"" words, no ham\there"
3,0,ok
4,1,£5 für dich
"""
MESSAGES = [
    ("see you at five", 0),
    ("WIN a prize, call 0900 now", 1),
    ('say "hi" now', 0),
    ("ok", 0),
    ("FREE ringtone, text YES to 80800", 1),
    ('two "quoted" words, no ham\there', 0),
    ("£5 für dich", 1),
]


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Puts a file in the place of the package's."""

    def install(content):
        path = tmp_path / "sms-spam.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        monkeypatch.setattr(packages, "fetch", lambda package: [path])

    return install


def in_test(text):
    return zlib.crc32(text.encode()) % 10 == 0


def test_swallowed_messages_are_split_and_each_counts_once(serve):
    fillers = [f"message number {i}" for i in range(40)]
    lines = [f"{i},{i % 2},{text}\n" for i, text in enumerate(fillers)]
    serve(WHOLE + "".join(lines))
    wanted = MESSAGES + [(text, i % 2) for i, text in enumerate(fillers)]
    splits = load("sms-spam", num_features=128)
    assert splits.name == "sms-spam"
    for part, tested in zip(splits[:2], (False, True), strict=True):
        own = [message for message in wanted if in_test(message[0]) == tested]
        assert own
        assert part.labels.ids.tolist() == [label for _, label in own]
        assert set(part.labels.lengths) == {1}
        assert part.labels.num_columns == 2
        texts = [text for text, _ in own]
        features = hash_char_ngrams(texts, min_n=2, max_n=5, num_features=128)
        for got, one in zip(part.features, features, strict=True):
            np.testing.assert_array_equal(got, one)


def test_options_are_those_of_the_ngrams(serve):
    serve(WHOLE)
    options = {"min_n": 1, "max_n": 2, "num_features": 50, "seed": 3}
    train, test, _ = load("sms-spam", **options)
    texts = [text for text, _ in MESSAGES]
    total = hash_char_ngrams(texts, **options).values.sum()
    assert train.features.values.sum() + test.features.values.sum() == total


def test_words_are_to_be_had_too(serve):
    serve(WHOLE)
    options = {"max_n": 2, "num_features": 64}
    train, test, _ = load("sms-spam", ngrams="word", min_n=1, **options)
    total = hash_words([text for text, _ in MESSAGES], **options).values.sum()
    assert train.features.values.sum() + test.features.values.sum() == total
    with pytest.raises(ValueError, match="min_n must be 1 for words; got 2"):
        load("sms-spam", ngrams="word")
    with pytest.raises(ValueError, match="'word' or 'char'; got 'letter'"):
        load("sms-spam", ngrams="letter")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "must begin with the line ',spam,text'"),
        ("a,b\n", "must begin with the line ',spam,text'"),
        (",spam,text\n0,1\n", r"record 0 of sms-spam.csv must be .*got \['0', '1'\]"),
        (",spam,text\n0,1,a\n1,ham,b\n", r"record 1 .*got \['1', 'ham', 'b'\]"),
    ],
)
def test_broken_files(serve, content, words):
    serve(content)
    with pytest.raises(ValueError, match=words):
        load("sms-spam")


def test_real_messages():
    folder = packages.cache_dir() / messages.SMS_SPAM.requirement
    if not (folder / "sms-spam.csv").exists():
        pytest.skip("sms-spam is not in the cache")
    train, test, _ = load("sms-spam")
    assert [part.features.num_rows for part in (train, test)] == [4624, 547]
    assert [int(part.labels.ids.sum()) for part in (train, test)] == [579, 74]
