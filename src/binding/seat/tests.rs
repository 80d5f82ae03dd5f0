//! Seats that are taken, handed over, given up and left behind.

use super::*;

/// What has to come comes within this.
const LIMIT: Duration = Duration::from_secs(20);

/// More than the inotify instances that a user may have.
const MANY: u32 = 140;

async fn is_dismissed(seat: &Seat) {
    tokio::time::timeout(LIMIT, seat.dismissed()).await.unwrap().unwrap();
}

/// Whether it is to leave, for a seat of which the runtime has had time to hear.
async fn is_asked(seat: &Seat) -> bool {
    tokio::time::timeout(Duration::ZERO, seat.dismissed()).await.is_ok()
}

fn names(seats: &Seats) -> Vec<std::ffi::OsString> {
    let names = state::names(&seats.0).unwrap();
    names.into_iter().filter(|name| name != ".lock").collect()
}

#[tokio::test]
async fn one_of_many_is_dismissed() {
    let place = tempfile::tempdir().unwrap();
    let seats = Seats::new(place.path());
    let mut taken: Vec<Seat> =
        (1..=MANY).map(|index| seats.take(index).unwrap().unwrap()).collect();
    assert!((1..=MANY).all(|index| seats.holder(index) == Some(std::process::id())));
    assert!(seats.take(9).unwrap().is_none(), "it is taken");
    let ninth = taken.remove(8);
    let leaves = async {
        is_dismissed(&ninth).await;
        drop(ninth);
    };
    let (left, ()) = tokio::join!(seats.dismiss(9), leaves);
    assert!(left.unwrap());
    assert!(!seats.is_held(9) && seats.holder(9).is_none());
    sleep(LOOK_AGAIN).await;
    for other in &taken {
        assert!(!is_asked(other).await);
    }
    seats.collect().unwrap();
    assert_eq!(seats.holder(MANY), Some(std::process::id()), "it is in use");
    drop(taken);
    assert_eq!(names(&seats), [""; 0]);
}

#[tokio::test]
async fn whom_it_is_handed_to_is_dismissed() {
    let place = tempfile::tempdir().unwrap();
    let seats = Seats::new(place.path());
    // Nobody is there.
    assert!(seats.dismiss(1).await.unwrap());
    let handed = |seats: &Seats| seats.take(1).unwrap().unwrap().hand_over().unwrap();
    // Before it has taken over; whoever dismisses still waits then.
    let fifo = handed(&seats);
    assert!(seats.is_held(1) && seats.take(1).unwrap().is_none());
    let adopts = async {
        while seats.is_held(1) {
            tokio::task::yield_now().await;
        }
        assert!(seats.adopt(1, fifo).unwrap().is_none());
    };
    let (left, ()) = tokio::join!(seats.dismiss(1), adopts);
    assert!(left.unwrap());
    // And afterwards.
    let seat = seats.adopt(1, handed(&seats)).unwrap().unwrap();
    let leaves = async {
        is_dismissed(&seat).await;
        drop(seat);
    };
    let (left, ()) = tokio::join!(seats.dismiss(1), leaves);
    assert!(left.unwrap());
    assert_eq!(names(&seats), [""; 0]);
}

#[tokio::test]
async fn who_was_asked_leaves_though_the_asker_was_killed() {
    let place = tempfile::tempdir().unwrap();
    let seats = Seats::new(place.path());
    let ask = || {
        let mut file = open(&seats.path(1), OpenOptions::new().write(true)).unwrap();
        file.write_all(&[0]).unwrap();
        file
    };
    let seat = seats.take(1).unwrap().unwrap();
    ask();
    is_dismissed(&seat).await;
    drop(seat);
    assert_eq!(names(&seats), [""; 0]);
    // While it is handed over.
    let fifo = seats.take(1).unwrap().unwrap().hand_over().unwrap();
    ask();
    is_dismissed(&seats.adopt(1, fifo).unwrap().unwrap()).await;
    // Killed, too, it leaves the request to nobody.
    let fifo = seats.take(1).unwrap().unwrap().hand_over().unwrap();
    let asker = ask();
    drop(fifo);
    let seat = seats.take(1).unwrap().unwrap();
    drop(asker);
    sleep(LOOK_AGAIN).await;
    assert!(!is_asked(&seat).await);
}

#[tokio::test]
async fn a_seat_that_is_dismissed_is_anothers() {
    let place = tempfile::tempdir().unwrap();
    let seats = Seats::new(place.path());
    let first = seats.take(1).unwrap().unwrap();
    seats.ask(1).unwrap().unwrap();
    let second = seats.take(1).unwrap().unwrap();
    // What the first one leaves is not the second one's.
    is_dismissed(&first).await;
    drop(first);
    assert!(seats.is_held(1));
    assert_eq!(seats.holder(1), Some(std::process::id()));
    drop(second);
    assert!(!seats.is_held(1));
}

#[tokio::test]
async fn what_nobody_holds_is_collected() {
    let place = tempfile::tempdir().unwrap();
    let seats = Seats::new(place.path());
    seats.collect().unwrap();
    // Whoever was to take over was killed.
    drop(seats.take(1).unwrap().unwrap().hand_over().unwrap());
    assert_eq!(names(&seats), ["1", "1.seat"]);
    assert!(!seats.is_held(1) && seats.holder(1).is_none());
    fs::write(seats.statement(2), "what an earlier version left").unwrap();
    seats.collect().unwrap();
    assert_eq!(names(&seats), [""; 0]);
}
