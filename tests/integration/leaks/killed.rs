//! netlaunch is killed at every moment of a launch.

use super::*;

/// Returns the number of kills at random moments, for each user and kind.
fn kills(kind: Kind) -> usize {
    extent(if kind.is_basic() { 14 } else { 7 }, 100)
}

/// Returns the number of kills after the guest has its lease.
fn kills_up(kind: Kind) -> usize {
    extent(if kind.is_basic() { 2 } else { 1 }, 20)
}

/// How far launches had come when they were killed.
#[derive(Debug, Default)]
struct Phases {
    /// No directory was made.
    before: usize,
    /// A directory, but no passt.
    directory: usize,
    /// passt served.
    passt: usize,
    /// QEMU ran.
    qemu: usize,
}

impl Phases {
    fn add(&mut self, place: &Place) {
        let phase = match place.launches().first().map(|dir| (dir, record(dir))) {
            None => &mut self.before,
            Some((_, Some(record))) if !record["qemu"].is_null() => &mut self.qemu,
            Some((dir, _)) if dir.join("passt.pid").exists() => &mut self.passt,
            Some(_) => &mut self.directory,
        };
        *phase += 1;
    }
}

fn kill_trials(who: As, kind: Kind) {
    let test = format!("leaks of {who:?} by {}", kind.name);
    if !have_root(&test) {
        return;
    }
    let (kills, kills_up) = (kills(kind), kills_up(kind));
    let site = Site::new(who);
    let places: Vec<Place> = (0..kills + kills_up)
        .map(|n| {
            let cold = n < kills && n % COLD_EVERY == 0;
            site.place(&format!("{}{n}", if cold { "cold" } else { "t" }))
        })
        .collect();

    let guest = Guest::find(&format!("the guests of {test}"));
    let (left, phases) = (Mutex::new(Vec::new()), Mutex::new(Phases::default()));
    thread::scope(|scope| {
        let (site, places, left, guest, test) = (&site, &places, &left, &guest, &test);
        let phases = &phases;
        let trial = move |n: usize| {
            let place = &places[n];
            let mut launch = match guest {
                Some(guest) if n >= kills => place.launch_guest(site, kind, guest),
                _ => place.launch_trial(site, kind, n),
            };
            if n < kills {
                thread::sleep(rand::rng().random_range(Duration::ZERO..kind.window()));
            } else {
                let is_up = || place.records().iter().any(|record| !record["qemu"].is_null());
                assert!(wait_until(LIMIT, is_up), "{test} {n}: {:?}", place.processes());
            }
            // A supervisor whose foreground process is killed removes the directory.
            phases.lock().unwrap().add(place);
            place.kill_netlaunch(&mut launch, kind, n);
            drop(launch);
            scope.spawn(move || {
                thread::sleep(GONE);
                left.lock().unwrap().extend(place.processes());
            });
        };
        each(kills, AT_ONCE, trial);
        // A guest keeps a processor busy until it is up.
        each(kills_up, 1, |n| trial(kills + n));
    });
    let left = left.into_inner().unwrap();
    let phases = phases.into_inner().unwrap();
    each(places.len(), AT_ONCE, |n| places[n].next_start(&site));
    let directories: Vec<_> = places.iter().flat_map(Place::launches).collect();
    eprintln!(
        "{test}: {kills} kills within {:?} and {kills_up} with {} up, which hit {phases:?}; {} processes were left after {GONE:?}, {} directories after the next start",
        kind.window(),
        if guest.is_some() { "the guest" } else { "QEMU" },
        left.len(),
        directories.len()
    );
    for (pid, _) in &left {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    assert_eq!((left, directories), (Vec::new(), Vec::new()));
    let caches = places.iter().flat_map(|place| fs::read_dir(place.dir.join("cache/netlaunch")));
    let odd: BTreeSet<_> = caches
        .flatten()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "probe.json")
        .collect();
    assert_eq!(odd, BTreeSet::new(), "in the caches");
}

#[test]
fn nothing_is_left_of_killed_launches_of_root_by_unix() {
    kill_trials(As::Root, Kind::UNIX);
}

#[test]
fn nothing_is_left_of_killed_launches_of_root_by_fd() {
    kill_trials(As::Root, Kind::FD);
}

#[test]
fn nothing_is_left_of_killed_launches_of_a_user_by_unix() {
    kill_trials(As::User, Kind::UNIX);
}

#[test]
fn nothing_is_left_of_killed_launches_of_a_user_by_fd() {
    kill_trials(As::User, Kind::FD);
}

#[test]
fn nothing_is_left_of_killed_daemons_of_root_by_unix() {
    kill_trials(As::Root, Kind::DAEMON_UNIX);
}

#[test]
fn nothing_is_left_of_killed_daemons_of_root_by_fd() {
    kill_trials(As::Root, Kind::DAEMON_FD);
}

#[test]
fn nothing_is_left_of_killed_daemons_of_a_user_by_unix() {
    kill_trials(As::User, Kind::DAEMON_UNIX);
}

#[test]
fn nothing_is_left_of_killed_daemons_of_a_user_by_fd() {
    kill_trials(As::User, Kind::DAEMON_FD);
}

#[test]
fn nothing_is_left_of_killed_stand_ins() {
    kill_trials(As::User, Kind::STAND_IN);
}

#[test]
fn nothing_is_left_of_killed_launches_with_two_nics() {
    kill_trials(As::User, Kind::TWO_NICS);
}
