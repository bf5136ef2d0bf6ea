//! What the hub knows without a server.

use super::ahead::Ahead;

#[test]
fn an_answer_counts_for_those_who_had_asked() {
    let mut ahead = Ahead::default();
    ahead.waiting.extend([1, 2, 3]);
    // The third was cancelled.
    assert_eq!(ahead.ask(|id| (id < 3).then_some(id * 100)), Some(1));
    ahead.waiting.push(4);
    assert_eq!(ahead.ask(|_| Some(400)), None, "one question at a time");
    // What came meanwhile, to the first and of the fourth, may be newer than this answer.
    assert_eq!(ahead.answered(150), [2]);
    assert_eq!(ahead.ask(|id| Some(id * 100)), Some(4));
    assert_eq!(ahead.answered(399), [0; 0]);
    assert_eq!(ahead.ask(|_| Some(1)), None, "nobody waits");
}

#[test]
fn a_question_without_an_answer_is_asked_again_for_another() {
    let mut ahead = Ahead::default();
    ahead.waiting.extend([1, 2]);
    assert_eq!(ahead.ask(|_| Some(100)), Some(1));
    ahead.unanswered();
    assert_eq!(ahead.ask(|_| Some(100)), Some(2));
    ahead.unanswered();
    assert_eq!(ahead.ask(|_| Some(100)), Some(1));
    assert_eq!(ahead.answered(1), [1, 2]);
}
