//! Runs one case on one backend: kills netlaunch, checks the state after that, and ends everything.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::LIMIT;
use super::case::{Case, LEARN, SWITCH, learn_address, old_rules, set, unrelated};
use super::seen::{
    Seen, are_the_same, files, has_learner, is_bound, is_learned, processes, rules, vnet0,
};
use crate::common::frame::{Frame, PEER, VM};
use crate::common::killed::{self, Moment};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{Reaped, extent, finish, have_root, start, wait_until};

/// Kills the learner process while the guest sends its address or after the address is in force.
/// Returns whether the process reached the moment.
fn learner_killed(scene: &PortScene, at: Option<&Moment>) -> bool {
    let args = (LEARN.command)(scene);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut strace: Reaped = start(killed::traced(&scene.sandbox, &args, at));
    let mut ended = None;
    let done = || {
        scene.leaves(&Frame::arp(VM, PEER, 1));
        ended = strace.0.try_wait().unwrap();
        ended.is_some() || is_learned(scene)
    };
    assert!(wait_until(LIMIT, done), "{at:?}: {}", vnet0(scene));
    if ended.is_none() {
        // A late moment can come after the status shows the address.
        let exits = || {
            ended = strace.0.try_wait().unwrap();
            ended.is_some()
        };
        if !wait_until(Duration::from_secs(1), exits) {
            let pid = vnet0(scene)["learning"]["pid"].as_i64().unwrap();
            kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
            strace.output(LIMIT);
            return false;
        }
    }
    killed::was_killed(ended.unwrap())
}

/// A case on a backend.
struct Killing<'a> {
    scene: &'a PortScene,
    case: &'a Case,
    backend: &'a str,
    /// The frames that pass before and after the command.
    old: Seen,
    new: Seen,
    /// The rules before the case, which are not netlaunch's.
    before: Vec<String>,
}

impl Killing<'_> {
    fn is_learner(&self) -> bool {
        self.case.name == LEARN.name
    }

    /// Waits until the tools have ended. Learner processes may run.
    fn rest(&self, about: &str) {
        let at_rest = || {
            let other =
                |(_, line): &(i32, String)| self.is_learner() || !line.contains(" binding-learn ");
            !processes(self.scene).iter().any(other)
        };
        assert!(wait_until(LIMIT, at_rest), "{about}: {:?}", processes(self.scene));
    }

    /// Checks that the verdict on each frame is that of the old or of the new rules. With nft, all
    /// verdicts must be of the same rules.
    fn is_old_or_new(&self, about: &str) {
        let (seen, old, new) = ((self.case.see)(self.scene), &self.old, &self.new);
        let states = format!("{about}:\nseen {seen:?}\nold  {old:?}\nnew  {new:?}");
        if self.backend == "nftables" {
            assert!(seen == *old || seen == *new, "{states}");
        }
        for ((seen, old), new) in seen.iter().zip(old).zip(new) {
            assert!(!seen || *old || *new, "a frame passes that both rules drop: {states}");
            let may_close = self.case.replaces || !old || !new;
            assert!(*seen || may_close, "a frame is dropped that both rules pass: {states}");
        }
    }

    /// Runs a command that concerns none of the ports.
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

    /// Checks that rules, definitions and bindings agree, and that a reload changes nothing.
    fn is_repaired(&self, about: &str) {
        let scene = self.scene;
        let unfinished = || -> Vec<String> {
            let is = |file: &String| {
                let is_hidden = file.contains("bindings/.") || file.contains("leases/.");
                // The texts of the last reload are complete.
                is_hidden && !file.ends_with("/.applied")
            };
            files(scene).into_iter().filter(is).collect()
        };
        // The new learner process may write a file at this moment.
        let limit = if self.case.learns { LIMIT } else { Duration::ZERO };
        let none = || unfinished().is_empty();
        assert!(wait_until(limit, none), "{about}: {:?}", unfinished());
        if self.case.learns && is_bound(scene) {
            assert!(wait_until(LIMIT, || has_learner(scene)), "{about}: {}", vnet0(scene));
        }
        let agrees = || {
            let expected = if (self.case.is_new)(scene) { &self.new } else { &self.old };
            (self.case.see)(scene) == *expected
        };
        // The new learner process sets the rules with the saved address.
        assert!(
            wait_until(limit, agrees),
            "{about}:\nseen {:?}\nold  {:?}\nnew  {:?}\nexpects the new rules: {}",
            (self.case.see)(scene),
            self.old,
            self.new,
            (self.case.is_new)(scene)
        );
        if self.case.learns && is_bound(scene) {
            learn_address(scene);
        }
        if self.case.name == SWITCH.name {
            // A port that another command bound meanwhile has the new backend.
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

    /// Unbinds everything and checks that nothing is left.
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

/// Kills netlaunch at each moment of a case.
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
        // The first run makes directories that stay, so the second one has the moments.
        learner_killed(scene, None);
        killing.end("first");
        (case.prepare)(scene);
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
    let (mut tried, mut reached) = (0, 0);
    // Nine and four have no common divisor, so a part of the moments has every next command.
    for (i, at) in moments.iter().enumerate().step_by(extent(9, 1)) {
        let about = &format!("{backend}: {} killed before {at}", case.name);
        if i % 4 == 1 {
            scene.bind(Station::Peer, "unrelated", &[]).unwrap();
        }
        tried += 1;
        (case.prepare)(scene);
        let args = command();
        let was_killed = if killing.is_learner() {
            learner_killed(scene, Some(at))
        } else {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            killed::killed(&scene.sandbox, &args, at)
        };
        // Only the first run makes some calls, such as that for a new directory.
        if !was_killed {
            killing.end(about);
            continue;
        }
        reached += 1;
        killing.rest(about);
        killing.is_old_or_new(about);
        killing.next_command(i, about);
        killing.is_repaired(about);
        killing.end(about);
    }
    println!("{backend}: {} killed at {reached} of {tried} moments", case.name);
    // One more may be missed, since a short run has few moments.
    assert!((reached + 1) * 10 > tried * 8, "{reached} of {tried}");
}
