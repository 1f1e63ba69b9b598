//! The contract suite that every store must pass (HA 7). Each check takes a fresh, empty store and panics with the
//! rule that was broken.
use std::sync::Arc;

use parking_lot::Mutex;
use spec::record::Ouid;

use super::{Delta, Key, Put, Reserved, Seq, Store, StoreError, Transaction, TryRules};
use crate::digest_tree::{BUCKETS, Digest};

const RULES: TryRules = TryRules { free_tries: 3, delay_ms_first: 1_000, delay_ms_max: 300_000 };

/// Runs every check, each on a store of its own.
///
/// # Panics
/// When the store breaks a rule; the message names it.
pub fn run(make: &dyn Fn() -> Arc<dyn Store>) {
    a_fresh_store_is_empty(&*make());
    commits_are_counted_without_gaps(&*make());
    a_failed_expectation_writes_nothing(&*make());
    a_transaction_that_names_a_key_twice_writes_nothing(&*make());
    a_version_is_the_seq_of_its_commit(&*make());
    removal_forgets_and_is_told_by_since(&*make());
    pages_are_in_ouid_order_and_hold_records_only(&*make());
    a_read_of_the_future_is_behind(&*make());
    digests_add_up_modulo_two_to_the_256(&*make());
    tries_are_counted_by_role_and_client(&*make());
    a_new_incarnation_keeps_the_seq(&*make());
    racing_transactions_lose_no_update(&make());
}

/// Beyond the contract: a store of one process hints at each commit before `apply` returns, and at nothing that was refused.
/// `store` is empty.
///
/// # Panics
/// When it does not.
pub fn hints_at_each_commit(store: &dyn Store) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..2 {
        let heard = heard.clone();
        store.watch(Box::new(move |seq| heard.lock().push(seq.0)));
    }
    apply(store, &puts(vec![put(record(1), b"one")]));
    let wrong = Transaction { expect: vec![(record(1), None)], ..Transaction::default() };
    store.apply(&wrong).expect_err("a wrong expectation is refused");
    apply(store, &puts(vec![put(record(2), b"two")]));
    assert_eq!(*heard.lock(), [1, 1, 2, 2], "each watcher hears of each commit");
}

fn record(number: u8) -> Key {
    Key::Record(Ouid([number; 16]))
}

fn put(key: Key, value: &[u8]) -> Put {
    Put { key, value: value.to_vec(), state: 1 }
}

fn puts(puts: Vec<Put>) -> Transaction {
    Transaction { puts, ..Transaction::default() }
}

fn apply(store: &dyn Store, transaction: &Transaction) -> Seq {
    store.apply(transaction).expect("a transaction whose expectations hold is carried out")
}

fn read(store: &dyn Store, key: Key) -> Option<super::Entry> {
    store.read(&[key], Seq(0)).expect("a read of the present succeeds").remove(0)
}

fn a_fresh_store_is_empty(store: &dyn Store) {
    assert_eq!(store.seq().expect("seq is readable"), Seq(0), "seq starts at 0");
    assert_eq!(store.incarnation().expect("incarnation is readable"), 0, "no incarnation yet");
    assert!(read(store, Key::Manifest).is_none());
    assert!(store.page(None, 10).expect("page is readable").is_empty());
    let digests = store.digest(0, BUCKETS - 1).expect("digests are readable");
    assert!(digests.len() == usize::from(BUCKETS) && digests.iter().all(|digest| *digest == Digest::ZERO));
}

fn commits_are_counted_without_gaps(store: &dyn Store) {
    for number in 1..=5 {
        let seq = apply(store, &puts(vec![put(record(number), b"v")]));
        assert_eq!(seq, Seq(u64::from(number)), "seq is gap-free");
    }
    assert_eq!(apply(store, &Transaction::default()), Seq(6), "an empty transaction is a commit");
    let commits = store.since(Seq(2), 2).expect("since is readable");
    assert_eq!(commits.iter().map(|commit| commit.seq.0).collect::<Vec<_>>(), [3, 4], "in order");
    assert_eq!(commits[0].keys, [record(3)]);
    assert_eq!(store.since(Seq(6), 9).expect("since is readable"), []);
}

fn a_failed_expectation_writes_nothing(store: &dyn Store) {
    apply(store, &puts(vec![put(Key::Manifest, b"one")]));
    let expect = vec![(record(1), None), (Key::Manifest, Some(77))];
    let transaction = Transaction {
        expect,
        deltas: vec![Delta { bucket: 0, difference: Digest([1; 32]) }],
        ..puts(vec![put(record(1), b"v"), put(Key::Manifest, b"two")])
    };
    let error = store.apply(&transaction).expect_err("a wrong version is a conflict");
    assert!(matches!(error, StoreError::Conflict(Key::Manifest)), "the conflict names the key");
    assert!(read(store, record(1)).is_none(), "nothing of it happened");
    assert_eq!(store.seq().expect("seq is readable"), Seq(1), "no commit was counted");
    assert_eq!(store.digest(0, 0).expect("digests are readable"), [Digest::ZERO]);
    let absent = Transaction { expect: vec![(Key::Manifest, None)], ..Transaction::default() };
    assert!(store.apply(&absent).is_err(), "`None` expects nothing there");
}

fn a_transaction_that_names_a_key_twice_writes_nothing(store: &dyn Store) {
    let deltas = vec![Delta { bucket: 0, difference: Digest([1; 32]) }];
    let both = vec![put(record(1), b"a"), put(record(1), b"b")];
    let removed = Transaction { removes: vec![record(1)], ..puts(vec![put(record(1), b"a")]) };
    let forgotten = Transaction { removes: vec![record(1), record(1)], ..Transaction::default() };
    for twice in [puts(both), removed, forgotten] {
        let error = store.apply(&Transaction { deltas: deltas.clone(), ..twice });
        assert!(matches!(error, Err(StoreError::Failed(_))), "a key stands once in a transaction");
    }
    assert!(read(store, record(1)).is_none(), "nothing of it happened");
    assert_eq!(store.seq().expect("seq is readable"), Seq(0), "no commit was counted");
    assert_eq!(store.digest(0, 0).expect("digests are readable"), [Digest::ZERO]);
}

fn a_version_is_the_seq_of_its_commit(store: &dyn Store) {
    apply(store, &puts(vec![put(record(1), b"a"), put(Key::Meta("name".into()), b"m")]));
    apply(store, &puts(vec![Put { key: record(1), value: b"b".to_vec(), state: 2 }]));
    let entry = read(store, record(1)).expect("it was written");
    assert_eq!((entry.version, entry.value.as_slice(), entry.state), (2, b"b".as_slice(), 2));
    assert_eq!(read(store, Key::Meta("name".into())).expect("it was written").version, 1);
    let next = Transaction { expect: vec![(record(1), Some(2))], ..puts(vec![put(record(1), b"c")]) };
    assert_eq!(apply(store, &next), Seq(3));
}

fn removal_forgets_and_is_told_by_since(store: &dyn Store) {
    apply(store, &puts(vec![put(record(1), b"a")]));
    let removes = vec![record(1), record(2)];
    apply(store, &Transaction { removes: removes.clone(), ..Transaction::default() });
    assert!(read(store, record(1)).is_none(), "it is forgotten");
    assert_eq!(store.since(Seq(1), 9).expect("since is readable")[0].keys, removes);
}

fn pages_are_in_ouid_order_and_hold_records_only(store: &dyn Store) {
    let keys = [record(9), Key::Manifest, record(2), Key::Credentials, record(200), Key::Meta("x".into())];
    apply(store, &puts(keys.into_iter().map(|key| put(key, b"v")).collect()));
    let page = |after: Option<Ouid>, count| -> Vec<Key> {
        let page = store.page(after, count).expect("page is readable");
        page.into_iter().map(|entry| entry.key).collect()
    };
    assert_eq!(page(None, 2), [record(2), record(9)]);
    assert_eq!(page(Some(Ouid([9; 16])), 2), [record(200)]);
    assert_eq!(page(Some(Ouid([200; 16])), 2), []);
}

fn a_read_of_the_future_is_behind(store: &dyn Store) {
    apply(store, &Transaction::default());
    assert!(store.read(&[Key::Manifest], Seq(1)).is_ok());
    let error = store.read(&[Key::Manifest], Seq(2)).expect_err("seq 2 is not reached");
    assert!(matches!(error, StoreError::Behind(Seq(1))));
}

fn digests_add_up_modulo_two_to_the_256(store: &dyn Store) {
    let change = |bucket, difference| Transaction {
        deltas: vec![Delta { bucket, difference }],
        ..Transaction::default()
    };
    let (one, other) = (Digest([0xF0; 32]), Digest([0x37; 32]));
    apply(store, &change(4095, one));
    apply(store, &change(4095, other));
    assert_eq!(store.digest(4095, 4095).expect("digests are readable"), [one.plus(&other)]);
    apply(store, &change(4095, Digest::ZERO.minus(&one)));
    assert_eq!(store.digest(4094, 4095).expect("digests are readable"), [Digest::ZERO, other]);
}

fn tries_are_counted_by_role_and_client(store: &dyn Store) {
    let reserve = |role, client: u8, tag: u8, now_ms| {
        store
            .reserve_try(role, &[client; 32], &[tag; 32], now_ms, &RULES)
            .expect("a try can be reserved on a healthy store")
    };
    assert_eq!(reserve(1, 1, 1, 0), Reserved::Counted);
    assert_eq!(reserve(1, 1, 1, 0), Reserved::Repeated, "the same tag spends nothing");
    assert_eq!(reserve(1, 1, 2, 0), Reserved::Counted);
    assert_eq!(reserve(1, 1, 3, 0), Reserved::Counted);
    assert_eq!(reserve(1, 1, 4, 100), Reserved::Wait(900), "three failures, then a delay");
    assert_eq!(reserve(0, 1, 4, 100), Reserved::Counted, "another role is another counter");
    assert_eq!(reserve(1, 2, 4, 100), Reserved::Counted, "another client is another counter");
    let failed = |role| -> u32 {
        store.tries(role).expect("tries are readable").iter().map(|(_, tries)| tries.failed).sum()
    };
    assert_eq!((failed(1), failed(0)), (4, 1));
    store.settle_try(1, &[1; 32]).expect("a try can be settled on a healthy store");
    assert_eq!(failed(1), 1, "a success forgets this client's failures only");
    assert_eq!(store.seq().expect("seq is readable"), Seq(0), "tries are no commits");
}

fn a_new_incarnation_keeps_the_seq(store: &dyn Store) {
    apply(store, &Transaction { incarnation: Some(7), ..Transaction::default() });
    apply(store, &Transaction::default());
    assert_eq!(store.incarnation().expect("incarnation is readable"), 7);
    apply(store, &Transaction { incarnation: Some(8), ..Transaction::default() });
    assert_eq!(store.incarnation().expect("incarnation is readable"), 8);
    assert_eq!(store.seq().expect("seq is readable"), Seq(3));
}

fn racing_transactions_lose_no_update(store: &Arc<dyn Store>) {
    let increment = |store: &dyn Store| loop {
        let found = read(store, Key::Meta("n".into()));
        let number = found.as_ref().map_or(0, |entry| entry.value[0]);
        let expect = vec![(Key::Meta("n".into()), found.map(|entry| entry.version))];
        let next = Transaction { expect, ..puts(vec![put(Key::Meta("n".into()), &[number + 1])]) };
        match store.apply(&next) {
            Ok(_) => return,
            Err(StoreError::Conflict(_)) => {}
            Err(other) => panic!("only a conflict is expected: {other}"),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10).for_each(|_| increment(&**store)));
        }
    });
    assert_eq!(read(&**store, Key::Meta("n".into())).expect("it was written").value, [40]);
    assert_eq!(store.seq().expect("seq is readable"), Seq(40), "only successes are commits");
}
