from __future__ import annotations

from cvxnn.datasets import load_tutoring
from cvxnn.preference import alternating_population, split_by_group


def test_conversations_are_well_formed() -> None:
    conversations = load_tutoring()
    names = [conversation.id for conversation in conversations]
    assert len(conversations) > 150
    assert names == sorted(set(names))
    for conversation in conversations:
        roles = [message["role"] for message in conversation.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert 4 <= len(roles) <= 8
        assert conversation.subject


def test_there_are_many_subjects_and_no_repeated_question() -> None:
    conversations = load_tutoring()
    assert len({conversation.subject for conversation in conversations}) > 10
    openings = {conversation.messages[0]["content"] for conversation in conversations}
    assert len(openings) == len(conversations)


def test_triplets_for_a_leak_free_experiment() -> None:
    conversations = load_tutoring()
    triplets = alternating_population(conversations)
    replies = sum(len(conversation.messages) // 2 for conversation in conversations)
    assert len(triplets) == replies - len(conversations)
    train, test = split_by_group(triplets)
    assert 0.15 < len(test) / len(triplets) < 0.35
    assert len(train) + len(test) == len(triplets)
