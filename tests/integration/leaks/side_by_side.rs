//! Launches that run, start and end at the same time.

use super::*;

/// Starts 30 launches at once, by both transports, in one launch root; returns when all are up.
fn thirty(site: &Site, place: &Place) -> Vec<Reaped> {
    let launches = Mutex::new(Vec::new());
    each(30, 30, |n| {
        let launch = place.launch(site, &["--transport", ["unix", "fd"][n % 2]]);
        launches.lock().unwrap().push(launch);
    });
    let all_up = || place.records().iter().filter(|r| !r["qemu"].is_null()).count() == 30;
    assert!(wait_until(LIMIT, all_up), "{:?}", place.records());
    launches.into_inner().unwrap()
}

#[test]
fn thirty_launches_run_at_once_and_leave_nothing() {
    if !have_root("thirty_launches_run_at_once_and_leave_nothing") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        let place = site.place("thirty");
        let launches = thirty(&site, &place);

        let output = site.finish(place.bare(&["ps", "--json"]));
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
        let listed = listed["launches"].as_array().unwrap();
        for part in ["/dir", "/name", "/pid", "/guest/mac", "/qemu/pid", "/passt/pid"] {
            let all: BTreeSet<String> =
                listed.iter().map(|record| record.pointer(part).unwrap().to_string()).collect();
            assert_eq!(all.len(), 30, "{part}: {all:?}");
        }
        for record in listed {
            let file = Path::new(record["dir"].as_str().unwrap()).join("passt.pid");
            assert_eq!(fs::read_to_string(file).unwrap(), format!("{}\n", pid(record, "passt")));
            assert!(alive(pid(record, "passt")) && alive(pid(record, "qemu")));
        }

        for launch in &launches {
            signal(launch.pid(), Signal::SIGTERM);
        }
        for launch in launches {
            ended_by_sigterm(launch);
        }
        place.assert_clean(&format!("{who:?}, thirty"));
    }
}

#[test]
fn thirty_killed_launches_leave_nothing() {
    if !have_root("thirty_killed_launches_leave_nothing") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        let place = site.place("thirty");
        let launches = thirty(&site, &place);
        // Some more are on their way.
        let more: Vec<_> = (0..6).map(|_| place.launch(&site, &[])).collect();
        for launch in launches.iter().chain(&more) {
            signal(launch.pid(), Signal::SIGKILL);
        }
        let killed = Instant::now();
        drop((launches, more));
        thread::sleep(GONE.saturating_sub(killed.elapsed()));
        assert_eq!(place.processes(), [], "{who:?}");
        assert!(place.launches().len() >= 30);
        place.next_start(&site);
        place.assert_clean(&format!("{who:?}, thirty killed"));
    }
}

#[test]
fn a_start_never_removes_the_directory_of_a_live_launch() {
    if !have_root("a_start_never_removes_the_directory_of_a_live_launch") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        let place = site.place("shared");
        let running = place.launch(&site, &[]);
        let before = up(&place, running.pid());
        let dir = PathBuf::from(before["dir"].as_str().unwrap());
        let files = || -> BTreeSet<_> {
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        // The launch can begin its log after its record.
        let has_log = || files().contains(OsStr::new("netlaunch.log"));
        assert!(wait_until(LIMIT, has_log), "{who:?}: {:?}", files());
        let were = files();
        let named = |name: &str| were.contains(OsStr::new(name));
        assert!(["launch.json", "passt.log", "passt.pid", "passt.sock"].into_iter().all(named));
        each(20, AT_ONCE, |n| match n % 2 {
            0 => place.next_start(&site),
            _ => {
                let launch = place.launch(&site, &["--transport", ["unix", "fd"][n / 2 % 2]]);
                thread::sleep(rand::rng().random_range(Duration::ZERO..WINDOW));
                drop(launch);
            }
        });
        place.next_start(&site);
        assert_eq!(place.launches(), std::slice::from_ref(&dir), "{who:?}");
        assert_eq!((files(), record(&dir)), (were, Some(before.clone())), "{who:?}");
        assert!(alive(pid(&before, "passt")) && alive(pid(&before, "qemu")));
        signal(running.pid(), Signal::SIGTERM);
        ended_by_sigterm(running);
        place.assert_clean(&format!("{who:?}, survivor"));
    }
}

/// The root is made by the first launch and removed by the last one, so starts and ends meet there.
#[test]
fn launches_that_start_and_end_at_once_share_the_root_directory() {
    if !have_root("launches_that_start_and_end_at_once_share_the_root_directory") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        let place = site.place("meet");
        let failures = Mutex::new(Vec::new());
        each(200, 8, |_| {
            let mut command = place.netlaunch(&["--backend", "slirp"], &["-no-such-option"]);
            command.env_remove("NETLAUNCH_STATE_DIR").env("XDG_RUNTIME_DIR", place.state());
            let output = site.finish(command);
            if output.status.code() != Some(1) {
                failures.lock().unwrap().push(text(&output.stderr));
            }
        });
        assert_eq!(failures.into_inner().unwrap(), [] as [String; 0], "{who:?}");
        place.assert_clean(&format!("{who:?}, meet"));
    }
}
