//! A guard, the supervisor or the parent is killed, and a directory above is closed.

use super::*;

#[test]
fn killing_guards_leaves_no_orphan() {
    if !have_root("killing_guards_leaves_no_orphan") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        for transport in ["unix", "fd"] {
            let what = format!("{who:?} {transport}");
            let place = site.place(&format!("passt{transport}"));
            let launch = place.launch(&site, &["--transport", transport]);
            let record = up(&place, launch.pid());
            let (passt, qemu) = (pid(&record, "passt"), pid(&record, "qemu"));
            let guard = parent(passt);
            assert_eq!(parent(guard), launch.pid(), "{what}");
            signal(guard, Signal::SIGKILL);
            assert!(wait_until(GONE, || !alive(passt)), "{what}: passt outlives its guard");
            assert!(alive(qemu), "{what}");
            if transport == "unix" {
                let again = || {
                    let records = place.records();
                    records.first().is_some_and(|r| pid(r, "passt") != passt)
                };
                assert!(wait_until(LIMIT, again), "{what}: passt is not started again");
            }
            signal(launch.pid(), Signal::SIGTERM);
            ended_by_sigterm(launch);
            place.assert_clean(&format!("{what}, guard of passt"));

            let place = site.place(&format!("qemu{transport}"));
            let launch = place.launch(&site, &["--transport", transport]);
            let qemu = pid(&up(&place, launch.pid()), "qemu");
            signal(parent(qemu), Signal::SIGKILL);
            assert!(wait_until(GONE, || !alive(qemu)), "{what}: QEMU outlives its guard");
            assert_eq!(launch.output(LIMIT).status.code(), Some(137), "{what}");
            place.assert_clean(&format!("{what}, guard of QEMU"));

            // The guards and netlaunch, all in the same moment.
            let place = site.place(&format!("all{transport}"));
            let launch = place.launch(&site, &["--transport", transport]);
            let record = up(&place, launch.pid());
            let all = [parent(pid(&record, "passt")), parent(pid(&record, "qemu")), launch.pid()];
            for pid in all {
                signal(pid, Signal::SIGKILL);
            }
            drop(launch);
            let gone = wait_until(GONE, || place.processes().is_empty());
            assert!(gone, "{what}: {:?}", place.processes());
            place.next_start(&site);
            place.assert_clean(&format!("{what}, all"));
        }
    }
}

#[test]
fn a_start_after_a_crash_removes_the_remains() {
    if !have_root("a_start_after_a_crash_removes_the_remains") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        let place = site.place("crash");
        let launch = place.launch(&site, &[]);
        let dir = PathBuf::from(up(&place, launch.pid())["dir"].as_str().unwrap());
        drop(launch);
        assert!(wait_until(GONE, || place.processes().is_empty()));
        assert!(dir.exists());
        let listed = site.finish(place.bare(&["ps", "--json"]));
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        assert_eq!(listed["launches"], Value::Array(Vec::new()), "a dead launch is not listed");
        assert!(dir.exists(), "ps changes nothing");

        let launch = place.launch(&site, &[]);
        let record = up(&place, launch.pid());
        assert!(!dir.exists(), "{who:?}");
        assert_eq!(place.launches(), [PathBuf::from(record["dir"].as_str().unwrap())]);
        signal(launch.pid(), Signal::SIGTERM);
        ended_by_sigterm(launch);
        place.assert_clean(&format!("{who:?}, crash"));
    }
}

#[test]
fn the_parents_death_ends_the_launch() {
    if !have_root("the_parents_death_ends_the_launch") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        let place = site.place("parent");
        let launch = place.netlaunch(&[], &[]);
        let mut shell = Command::new("/bin/sh");
        // The shell stays in between: it has something to do afterwards.
        shell
            .args(["-c", "\"$@\"; exit 3", "sh"])
            .arg(launch.get_program())
            .args(launch.get_args());
        shell.env_clear();
        for (name, value) in launch.get_envs() {
            shell.env(name, value.unwrap());
        }
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if who == As::User {
            shell.uid(USER).gid(USER);
        }
        let shell = site.start(shell);
        let is_up = || place.records().iter().any(|record| !record["qemu"].is_null());
        assert!(wait_until(LIMIT, is_up), "{:?}", place.processes());
        drop(shell);
        let gone =
            wait_until(LIMIT, || place.processes().is_empty() && place.launches().is_empty());
        assert!(gone, "{who:?}: {:?} {:?}", place.processes(), place.launches());
    }
}

#[test]
fn passt_works_with_a_launch_directory_below_a_closed_one() {
    if !have_root("passt_works_with_a_launch_directory_below_a_closed_one") {
        return;
    }
    let site = Site::new(As::Root);
    // passt becomes another user, which has no access below a directory of root.
    for (name, root) in [("far", "closed/a/b"), ("near", "closed"), ("passt", "closed/a")] {
        let place = site.place(name);
        fs::create_dir(place.dir.join("closed")).unwrap();
        let closed = fs::Permissions::from_mode(0o700);
        fs::set_permissions(place.dir.join("closed"), closed).unwrap();
        let mut passt = place.dir.join("passt");
        if name == "passt" {
            // Where root has built one, say.
            passt = place.dir.join("closed/passt");
            symlink(passt_path(), &passt).unwrap();
        }
        let passt = passt.display().to_string();
        let mut command = place.netlaunch(&["--backend", "passt", "--passt", &passt], &[]);
        command.env("NETLAUNCH_STATE_DIR", place.dir.join(root));
        let launch = site.start(command);
        let records = || fs::read_dir(place.dir.join(root)).into_iter().flatten().flatten();
        let mut found = None;
        let is_up = wait_until(LIMIT, || {
            found = records().filter_map(|e| record(&e.path())).find(|r| !r["qemu"].is_null());
            found.is_some() || !alive(launch.pid())
        });
        if !is_up || found.is_none() {
            let _ = kill(Pid::from_raw(launch.pid()), Signal::SIGKILL);
            panic!("{name}: {}", text(&launch.output(LIMIT).stderr));
        }
        let passt = pid(&found.clone().unwrap(), "passt");
        let status = fs::read_to_string(format!("/proc/{passt}/status")).unwrap();
        assert!(!status.contains("Uid:\t0\t"), "passt is still root");
        let dir = PathBuf::from(found.unwrap()["dir"].as_str().unwrap());
        let number = fs::read_to_string(dir.join("passt.pid")).unwrap();
        assert_eq!(number, format!("{passt}\n"));
        signal(launch.pid(), Signal::SIGTERM);
        ended_by_sigterm(launch);
        assert_eq!(place.processes(), []);
        assert_eq!(records().count(), 0);
    }
}
