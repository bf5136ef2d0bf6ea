use super::*;
use crate::tenure::Before;

#[test]
fn a_kind_is_whose_keys_come_before() {
    let before = |kind: Kind| {
        let Before { prefixes, most } = kind.before("/locks/a", 3);
        (prefixes.iter().map(ToString::to_string).collect::<Vec<_>>(), most)
    };
    let lease = 0x1f;
    assert_eq!(Kind::Mutex.key("/locks/a", lease), "/locks/a/1f");
    assert_eq!(before(Kind::Mutex), (vec!["/locks/a/".to_owned()], 1));
    assert_eq!(Kind::Read.key("/locks/a", lease), "/locks/a/r-1f");
    assert_eq!(before(Kind::Read), (vec!["/locks/a/w-".to_owned()], 1));
    assert_eq!(Kind::Write.key("/locks/a", lease), "/locks/a/w-1f");
    assert_eq!(
        before(Kind::Write),
        (vec!["/locks/a/r-".to_owned(), "/locks/a/w-".to_owned()], 1)
    );
    assert_eq!(Kind::Semaphore.key("/locks/a", lease), "/locks/a/s-1f");
    assert_eq!(before(Kind::Semaphore), (vec!["/locks/a/s-".to_owned()], 3));
    assert_eq!(Kind::Semaphore.before("/locks/a", 0).most, 1);
}
