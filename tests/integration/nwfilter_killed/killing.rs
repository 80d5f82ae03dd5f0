//! One case on one backend: netlaunch killed, what has to hold then, and how all of it ends.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::LIMIT;
use crate::case::{Case, LEARN, SWITCH, old_rules, set, teach, unrelated};
use crate::common::frame::{Frame, PEER, VM};
use crate::common::killed::{self, Moment};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{Reaped, finish, have_root, start, wait_until};
use crate::seen::{
    Seen, are_the_same, files, is_bound, is_learnt, is_listened_to, processes, rules, vnet0,
};

/// Kills the learner while the guest says its address, or after that is in force. Returns whether it
/// came to the moment.
fn learner_killed(scene: &PortScene, at: Option<&Moment>) -> bool {
    let args = (LEARN.command)(scene);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut strace: Reaped = start(killed::traced(&scene.sandbox, &args, at));
    let mut ended = None;
    let done = || {
        scene.leaves(&Frame::arp(VM, PEER, 1));
        ended = strace.0.try_wait().unwrap();
        ended.is_some() || is_learnt(scene)
    };
    assert!(wait_until(LIMIT, done), "{at:?}: {}", vnet0(scene));
    if ended.is_none() {
        // A last moment can come after the status says so.
        let exits = || {
            ended = strace.0.try_wait().unwrap();
            ended.is_some()
        };
        if !wait_until(Duration::from_millis(100), exits) {
            let pid = vnet0(scene)["learning"]["pid"].as_i64().unwrap();
            kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
            strace.output(LIMIT);
            return false;
        }
    }
    killed::was_killed(ended.unwrap())
}

/// One case on one backend.
struct Killing<'a> {
    scene: &'a PortScene,
    case: &'a Case,
    backend: &'a str,
    /// Which frames pass before the command and after it.
    old: Seen,
    new: Seen,
    /// The rules of others.
    before: Vec<String>,
}

impl Killing<'_> {
    fn is_learner(&self) -> bool {
        self.case.name == LEARN.name
    }

    /// Waits until the tools that were at work are gone; learners may be there.
    fn rest(&self, about: &str) {
        let at_rest = || {
            let other =
                |(_, line): &(i32, String)| self.is_learner() || !line.contains(" binding-learn ");
            !processes(self.scene).iter().any(other)
        };
        assert!(wait_until(LIMIT, at_rest), "{about}: {:?}", processes(self.scene));
    }

    /// Every frame is judged as by the old rules or as by the new ones; by nft all alike.
    fn is_old_or_new(&self, about: &str) {
        let (seen, old, new) = ((self.case.see)(self.scene), &self.old, &self.new);
        let states = format!("{about}:\nseen {seen:?}\nold  {old:?}\nnew  {new:?}");
        if self.backend == "nftables" {
            assert!(seen == *old || seen == *new, "{states}");
        }
        for ((seen, old), new) in seen.iter().zip(old).zip(new) {
            assert!(!seen || *old || *new, "open where both are closed: {states}");
            let may_close = self.case.replaces || !old || !new;
            assert!(*seen || may_close, "closed where both are open: {states}");
        }
    }

    /// Some command that has to do with none of the ports.
    fn next_command(&self, i: usize, about: &str) {
        let scene = self.scene;
        let done = match i % 4 {
            0 => scene.bind(Station::Peer, "unrelated", &[]),
            1 => done(scene.nwfilter(&["binding-delete", "peer0"])),
            2 => scene.define("unrelated", &unrelated(2000 + i as u16)),
            _ => self.reload(),
        };
        done.unwrap_or_else(|error| panic!("{about}: {error}"));
    }

    fn reload(&self) -> Result<(), String> {
        done(finish(self.scene.sandbox.netlaunch(&["firewall", "reload"])))
    }

    /// Rules, definitions and bindings agree, and a reload has nothing to mend.
    fn is_repaired(&self, about: &str) {
        let scene = self.scene;
        let unfinished = || -> Vec<String> {
            let is = |file: &String| file.contains("bindings/.") || file.contains("leases/.");
            files(scene).into_iter().filter(is).collect()
        };
        // Whoever learns now may just be writing.
        let limit = if self.case.learns { LIMIT } else { Duration::ZERO };
        let none = || unfinished().is_empty();
        assert!(wait_until(limit, none), "{about}: {:?}", unfinished());
        if self.case.learns && is_bound(scene) {
            assert!(wait_until(LIMIT, || is_listened_to(scene)), "{about}: {}", vnet0(scene));
        }
        let agrees = || {
            let expected = if (self.case.is_new)(scene) { &self.new } else { &self.old };
            (self.case.see)(scene) == *expected
        };
        // What was learnt before is put in force by whoever learns now.
        assert!(
            wait_until(limit, agrees),
            "{about}:\nseen {:?}\nold  {:?}\nnew  {:?}\nis to be new: {}",
            (self.case.see)(scene),
            self.old,
            self.new,
            (self.case.is_new)(scene)
        );
        if self.case.learns && is_bound(scene) {
            teach(scene);
        }
        if self.case.name == SWITCH.name {
            // What another command bound meanwhile has the backend that was to be.
            if scene.list()["bindings"].to_string().contains("peer0") {
                scene.unbind(Station::Peer);
            }
            let backends = [Station::Vnet0, Station::Vnet1].map(|port| scene.backend_of(port));
            assert_eq!(backends[0], backends[1], "{about}");
            set(scene, &backends[0]);
        }
        let is = rules(scene);
        self.reload().unwrap();
        are_the_same(&is, &rules(scene), about);
    }

    /// Takes everything away, and looks for what is left.
    fn end(&self, about: &str) {
        let scene = self.scene;
        for binding in scene.list()["bindings"].as_array().unwrap() {
            done(scene.nwfilter(&["binding-delete", binding["port"].as_str().unwrap()])).unwrap();
        }
        set(scene, self.backend);
        scene.define("inner", &old_rules()).unwrap();
        self.reload().unwrap();
        let none = || processes(scene).is_empty();
        assert!(wait_until(LIMIT, none), "{about}: {:?}", processes(scene));
        assert_eq!(files(scene), [] as [String; 0], "{about}");
        are_the_same(&rules(scene), &self.before, about);
    }
}

/// Kills netlaunch at every moment of a case.
pub fn kill_at_every_moment(case: &Case, backend: &str) {
    if !have_root(case.name) {
        return;
    }
    let scene = &PortScene::new(Some(backend));
    scene.foreign_rules();
    scene.define("unrelated", &unrelated(1999)).unwrap();
    scene.define("inner", &old_rules()).unwrap();
    scene.define("outer", "<filterref filter='inner'/>").unwrap();
    let mut killing =
        Killing { scene, case, backend, old: vec![], new: vec![], before: rules(scene) };
    let command = || (case.command)(scene);
    (case.prepare)(scene);
    killing.old = (case.see)(scene);
    let moments = if killing.is_learner() {
        learner_killed(scene, None);
        killed::noted(&scene.sandbox)
    } else {
        let args = command();
        killed::moments(&scene.sandbox, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    killing.new = (case.see)(scene);
    let same = case.name == SWITCH.name;
    assert_eq!(killing.old == killing.new, same, "{:?}", killing.old);
    killing.end("undisturbed");
    let mut came = 0;
    for (i, at) in moments.iter().enumerate() {
        let about = &format!("{backend}: {} killed before {at}", case.name);
        if i % 4 == 1 {
            scene.bind(Station::Peer, "unrelated", &[]).unwrap();
        }
        (case.prepare)(scene);
        let args = command();
        let was_killed = if killing.is_learner() {
            learner_killed(scene, Some(at))
        } else {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            killed::killed(&scene.sandbox, &args, at)
        };
        // A call that only the first run makes, such as that for a directory, does not come again.
        if !was_killed {
            killing.end(about);
            continue;
        }
        came += 1;
        killing.rest(about);
        killing.is_old_or_new(about);
        killing.next_command(i, about);
        killing.is_repaired(about);
        killing.end(about);
    }
    println!("{backend}: {} killed at {came} of {} moments", case.name, moments.len());
    assert!(came * 10 > moments.len() * 8, "{came} of {}", moments.len());
}
