"""Sequences and batches of odd texts."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from compress.calibration.texts import batches, cut, read_texts
from compress.evaluation import prediction
from compress.evaluation.windows import apart
from compress.model.structure import vocabulary

odd = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "",
            " ",
            "\n\t",
            "\u200b",
            "\x00",
            "\x1b[0m",
            "👩‍👩‍👧‍👦 🇰🇷",
            "x" * 3000,
            "é\u0301" * 50,
            "[SEP]",
            "a [SEP] b",
            "</s>",
            "\ufeff",
            "中文",
        ]
    ),
    st.text(alphabet=st.characters(categories=["Cc", "Cf", "Zs", "So"]), max_size=30),
)
texts = st.lists(st.one_of(odd, st.tuples(odd, odd)), max_size=6)


@pytest.fixture(scope="module")
def tokenizers(letters, tokenizer):
    """One of word pieces with separators, one of bytes without."""
    return letters, tokenizer


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(texts, st.integers(1, 300), st.integers(16, 64))
@example([("x" * 3000, "x" * 3000)], 300, 16)
@example([("", "x"), ("x", "")], 5, 16)
def test_odd_texts_give_whole_sequences_within_the_budget(tokenizers, texts, tokens, length):
    for tokenizer in tokenizers:
        sequences = cut(tokenizer, texts, tokens, length, seed=0)
        assert all(2 <= len(s) <= length for s in sequences) and sum(map(len, sequences)) <= tokens
        made = batches(tokenizer, sequences, size=2)
        assert sum(int(b["attention_mask"].sum()) for b in made) == sum(map(len, sequences))
        for batch in made:
            assert len({v.shape for v in batch.values()}) == 1
            assert not batch.get("token_type_ids", batch["attention_mask"])[batch["attention_mask"] == 0].any()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.lists(odd, min_size=1, max_size=4))
def test_odd_texts_are_classified_and_labelled(encoder, decoder, tokenizers, found):
    assert len(prediction.classes(encoder, tokenizers[0], found)) == len(found)
    windows = apart(decoder[1], ["a text", *found], 200, 64)
    assert prediction.losses(*decoder, windows).shape[1] == 2


def test_a_batch_of_a_large_vocabulary_has_few_logits(tokenizer, encoder, decoder):
    sequences = [[5] * 512] * 6
    rows = [len(b["input_ids"]) for b in batches(tokenizer, sequences, 32, vocabulary=49_152)]
    assert rows == [2, 2, 2]  # 3 * 512 * 49,152 are more than 2^26
    assert [len(b["input_ids"]) for b in batches(tokenizer, sequences, 32, vocabulary=2**20)] == [1] * 6
    assert [len(b["input_ids"]) for b in batches(tokenizer, sequences, 32)] == [6]
    assert vocabulary(encoder) == 0 and vocabulary(decoder[0]) == 4096


def test_what_has_no_content_is_left_out(tokenizers, tmp_path):
    assert cut(tokenizers[0], ["", "  ", ("", "")], 100, 32) == []
    assert cut(tokenizers[1], ["", ("", "")], 100, 32) == []
    (tmp_path / "a.csv").write_text('text,text_pair\n" ","b"\n"a",""\n"a","b"\n"",""\n', encoding="utf-8")
    assert read_texts(tmp_path / "a.csv") == ["b", "a", ("a", "b")]
