//! Tests of learner locks: taken, handed over, released, and left by a killed process.

use super::*;

/// The longest wait for an event that must happen.
const LIMIT: Duration = Duration::from_secs(20);

/// More than the number of inotify instances that a user may have (128).
const MANY: u32 = 140;

async fn is_dismissed(lock: &LearnerLock) {
    tokio::time::timeout(LIMIT, lock.dismissed()).await.unwrap().unwrap();
}

/// Returns whether the holder has been asked to leave. The runtime must have had time to poll the
/// FIFO.
async fn is_asked(lock: &LearnerLock) -> bool {
    tokio::time::timeout(Duration::ZERO, lock.dismissed()).await.is_ok()
}

fn names(locks: &LearnerLocks) -> Vec<std::ffi::OsString> {
    let names = state_file::names(&locks.0).unwrap();
    names.into_iter().filter(|name| name != ".lock").collect()
}

#[tokio::test]
async fn a_request_to_leave_reaches_only_the_holder_of_that_interface() {
    let place = tempfile::tempdir().unwrap();
    let locks = LearnerLocks::new(place.path());
    let mut taken: Vec<LearnerLock> =
        (1..=MANY).map(|index| locks.take(index).unwrap().unwrap()).collect();
    assert!((1..=MANY).all(|index| locks.holder(index) == Some(std::process::id())));
    assert!(locks.take(9).unwrap().is_none(), "it is taken");
    let ninth = taken.remove(8);
    let leaves = async {
        is_dismissed(&ninth).await;
        drop(ninth);
    };
    let (left, ()) = tokio::join!(locks.dismiss(9), leaves);
    assert!(left.unwrap());
    assert!(!locks.is_held(9) && locks.holder(9).is_none());
    sleep(LOOK_AGAIN).await;
    for other in &taken {
        assert!(!is_asked(other).await);
    }
    locks.collect(|_| false).unwrap();
    assert_eq!(locks.holder(MANY), Some(std::process::id()), "it is in use");
    drop(taken);
    assert_eq!(names(&locks), [""; 0]);
}

#[tokio::test]
async fn a_request_to_leave_reaches_the_process_that_adopts_the_lock() {
    let place = tempfile::tempdir().unwrap();
    let locks = LearnerLocks::new(place.path());
    // No process holds the lock.
    assert!(locks.dismiss(1).await.unwrap());
    let handed = |locks: &LearnerLocks| locks.take(1).unwrap().unwrap().hand_over().unwrap();
    // The request comes before the new process has adopted the lock, while the asker still waits.
    let fifo = handed(&locks);
    assert!(locks.is_held(1) && locks.take(1).unwrap().is_none());
    let adopts = async {
        while locks.is_held(1) {
            tokio::task::yield_now().await;
        }
        assert!(locks.adopt(1, fifo).unwrap().is_none());
    };
    let (left, ()) = tokio::join!(locks.dismiss(1), adopts);
    assert!(left.unwrap());
    // The request comes after the new process has adopted the lock.
    let lock = locks.adopt(1, handed(&locks)).unwrap().unwrap();
    let leaves = async {
        is_dismissed(&lock).await;
        drop(lock);
    };
    let (left, ()) = tokio::join!(locks.dismiss(1), leaves);
    assert!(left.unwrap());
    assert_eq!(names(&locks), [""; 0]);
}

#[tokio::test]
async fn a_holder_leaves_even_if_the_asking_process_was_killed() {
    let place = tempfile::tempdir().unwrap();
    let locks = LearnerLocks::new(place.path());
    let ask = || {
        let mut file = open(&locks.path(1), OpenOptions::new().write(true)).unwrap();
        file.write_all(&[0]).unwrap();
        file
    };
    let lock = locks.take(1).unwrap().unwrap();
    ask();
    is_dismissed(&lock).await;
    drop(lock);
    assert_eq!(names(&locks), [""; 0]);
    // The request comes while the lock is handed over.
    let fifo = locks.take(1).unwrap().unwrap().hand_over().unwrap();
    ask();
    is_dismissed(&locks.adopt(1, fifo).unwrap().unwrap()).await;
    // The receiver is killed, too. The next holder must not see the old request.
    let fifo = locks.take(1).unwrap().unwrap().hand_over().unwrap();
    let asker = ask();
    drop(fifo);
    let lock = locks.take(1).unwrap().unwrap();
    drop(asker);
    sleep(LOOK_AGAIN).await;
    assert!(!is_asked(&lock).await);
}

#[tokio::test]
async fn another_process_can_take_a_dismissed_lock_at_once() {
    let place = tempfile::tempdir().unwrap();
    let locks = LearnerLocks::new(place.path());
    let first = locks.take(1).unwrap().unwrap();
    locks.ask(1).unwrap().unwrap();
    let second = locks.take(1).unwrap().unwrap();
    // The first holder must not remove the files of the second.
    is_dismissed(&first).await;
    drop(first);
    assert!(locks.is_held(1));
    assert_eq!(locks.holder(1), Some(std::process::id()));
    drop(second);
    assert!(!locks.is_held(1));
}

#[tokio::test]
async fn locks_without_a_holder_are_collected() {
    let place = tempfile::tempdir().unwrap();
    let locks = LearnerLocks::new(place.path());
    locks.collect(|_| false).unwrap();
    // The process that should have adopted the lock was killed.
    drop(locks.take(1).unwrap().unwrap().hand_over().unwrap());
    assert_eq!(names(&locks), ["1", "1.seat"]);
    assert!(!locks.is_held(1) && locks.holder(1).is_none());
    fs::write(locks.holder_file(2), "what an earlier version left").unwrap();
    locks.collect(|_| false).unwrap();
    assert_eq!(names(&locks), [""; 0]);
}
