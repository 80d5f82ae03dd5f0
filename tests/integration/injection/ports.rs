//! Injects faults into commands on ports: bind, unbind, redefine, reload, learn.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::networks::differs;
use super::sweep::{BOUND, Ended, Live, Scenario};
use crate::common::frame::{Frame, PEER, VM};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{Sandbox, finish, wait_until};
use crate::nwfilter_killed::seen::{
    files, has_learner, is_bound, is_learned, processes, rules, vnet0,
};

/// The command that gets the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Bind,
    Unbind,
    Redefine,
    Reload,
    BindLearning,
    Learn,
}

pub struct Ports {
    scene: PortScene,
    backend: String,
    verb: Verb,
    /// The rules without a filter on vnet0, and with the first and the second filter.
    unbound: String,
    bound: [String; 2],
    /// The start of the learner process, and the last check of the guest's address.
    since: Option<Instant>,
    looked: Instant,
    learned: bool,
    /// The filter that was defined last, of the two filters.
    version: usize,
}

fn version(number: usize) -> String {
    let port = 1001 + number % 2;
    format!(
        "<rule action='drop' direction='out'><udp dstportstart='{port}'/></rule>\
         <rule action='drop' direction='in'><udp-ipv6 dstportstart='{port}'/></rule>"
    )
}

impl Ports {
    pub fn new(verb: Verb, backend: &str) -> Self {
        let scene = PortScene::new(Some(backend));
        scene.foreign_rules();
        scene.define("outer", "<filterref filter='inner'/>").unwrap_or(());
        scene.define("inner", &version(0)).unwrap();
        scene.define("outer", "<filterref filter='inner'/>").unwrap();
        let mut ports = Ports {
            scene,
            backend: backend.to_owned(),
            verb,
            unbound: String::new(),
            bound: [String::new(), String::new()],
            since: None,
            looked: Instant::now(),
            learned: false,
            version: 0,
        };
        if verb == Verb::Redefine {
            ports.scene.bind(Station::Vnet1, "outer", &[]).unwrap();
        }
        for number in [1, 0, 1, 0] {
            ports.scene.define("inner", &version(number)).unwrap();
            ports.unbound = ports.rules();
            ports.bind().unwrap();
            ports.bound[number] = ports.rules();
            ports.scene.unbind(Station::Vnet0);
        }
        ports.unbound = ports.rules();
        ports
    }

    fn rules(&self) -> String {
        rules(&self.scene).join("\n")
    }

    fn filter(&self) -> &'static str {
        match self.verb {
            Verb::BindLearning | Verb::Learn => "clean-traffic",
            _ => "outer",
        }
    }

    fn bind(&self) -> Result<(), String> {
        self.scene.bind(Station::Vnet0, self.filter(), &[])
    }

    fn reload(&self) -> Result<(), String> {
        done(finish(self.scene.sandbox.netlaunch(&["firewall", "reload"])))
    }

    /// Binds the port to the first filter if it is not bound.
    fn make_bound(&self) {
        if !is_bound(&self.scene) {
            self.bind().unwrap();
        }
    }

    /// Removes the rules of the port as another program does, but not its status file.
    fn remove_rules(&self) {
        let remove = match self.backend.as_str() {
            "nftables" => "nft delete table bridge netlaunch_nwfilter",
            _ => "iptables -D FORWARD -j NETLAUNCH_PORT_FROM",
        };
        self.scene.sh(remove);
    }

    fn file(&self, name: &str) -> String {
        self.scene.sandbox.path(name).to_string_lossy().into_owned()
    }

    fn has_rules_of(&self, number: usize) -> Result<(), String> {
        differs("in force", &self.bound[number % 2], &self.rules())
    }

    /// Waits for a learner process, which starts independently of the command.
    fn learns(&self) -> Result<(), String> {
        let found = wait_until(BOUND, || has_learner(&self.scene));
        found.then_some(()).ok_or_else(|| format!("no learner: {}", vnet0(&self.scene)))
    }

    fn learn_address(&self) -> Result<(), String> {
        let learned = wait_until(BOUND, || {
            self.scene.try_send(Station::Vnet0, &Frame::arp(VM, PEER, 1));
            is_learned(&self.scene)
        });
        learned.then_some(()).ok_or_else(|| format!("nothing learned: {}", vnet0(&self.scene)))
    }

    /// Unbinds the port if it is bound.
    fn delete(&self) -> Result<(), String> {
        let deleted = done(self.scene.nwfilter(&["binding-delete", "vnet0"]));
        deleted.or_else(|said| if said.contains("has no filter") { Ok(()) } else { Err(said) })
    }

    /// Unbinds the port and checks that nothing is left.
    fn is_gone(&self) -> Result<(), String> {
        let scene = &self.scene;
        if is_bound(scene) {
            self.delete()?;
        }
        let none = || processes(scene).is_empty();
        if !wait_until(BOUND, none) {
            return Err(format!("runs: {:?}", processes(scene)));
        }
        let kept = |file: &String| !file.ends_with("/vnet1.json");
        let files: Vec<String> = files(scene).into_iter().filter(kept).collect();
        if !files.is_empty() {
            return Err(format!("left: {files:?}"));
        }
        differs("unbound", &self.unbound, &self.rules())
    }
}

impl Scenario for Ports {
    fn sandbox(&self) -> &Sandbox {
        &self.scene.sandbox
    }

    fn prepare(&mut self) -> Vec<String> {
        self.since = None;
        self.learned = false;
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self.verb {
            Verb::Bind | Verb::BindLearning => {
                let file = self.scene.binding(Station::Vnet0, self.filter(), &[]);
                words(&["nwfilter", "binding-create", &file])
            }
            Verb::Unbind => {
                self.make_bound();
                words(&["nwfilter", "binding-delete", "vnet0"])
            }
            Verb::Reload => {
                self.make_bound();
                self.remove_rules();
                words(&["firewall", "reload"])
            }
            Verb::Redefine => {
                self.make_bound();
                self.version = 1 - self.version;
                let file = self.file("inner.xml");
                let xml = format!("<filter name='inner'>{}</filter>\n", version(self.version));
                fs::write(&file, xml).unwrap();
                words(&["nwfilter", "define", &file])
            }
            Verb::Learn => {
                self.make_bound();
                self.learns().unwrap();
                let pid = vnet0(&self.scene)["learning"]["pid"].as_i64().unwrap() as i32;
                kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
                assert!(wait_until(BOUND, || !has_learner(&self.scene)));
                words(&["nwfilter", "binding-learn", "vnet0"])
            }
        }
    }

    fn during(&mut self, live: &mut Live) -> bool {
        if self.verb != Verb::Learn || self.learned {
            return false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.looked.elapsed() > Duration::from_millis(50) {
            self.looked = Instant::now();
            self.scene.try_send(Station::Vnet0, &Frame::arp(VM, PEER, 1));
            // Instead of an address, the learner may report an error; then the port is down until a
            // reload.
            self.learned =
                is_learned(&self.scene) || !vnet0(&self.scene)["learning"]["error"].is_null();
        }
        let over = self.learned || since.elapsed() > Duration::from_secs(15);
        if over {
            self.learned = true;
            let _ = kill(live.pid, Signal::SIGKILL);
        }
        over
    }

    fn check_success(&mut self, ended: &Ended) -> Result<(), String> {
        match self.verb {
            Verb::Bind | Verb::Reload => self.has_rules_of(0),
            Verb::Unbind => self.is_gone(),
            Verb::Redefine => Ok(()),
            Verb::BindLearning => {
                self.has_rules_of(0)?;
                self.learns()
            }
            Verb::Learn
                if ended.stopped
                    && !is_learned(&self.scene)
                    && vnet0(&self.scene)["learning"]["error"].is_null() =>
            {
                Err(format!("the learner runs and learns nothing: {}", vnet0(&self.scene)))
            }
            Verb::Learn => Ok(()),
        }
    }

    fn next(&mut self, number: usize, ended: &Ended) -> Result<(), String> {
        match self.verb {
            Verb::Redefine => {
                if !ended.success {
                    self.scene.define("inner", &version(self.version))?;
                }
                self.has_rules_of(self.version)?;
                // The port stays bound, because the next case redefines the filter again.
                return self.reload().and_then(|()| self.has_rules_of(self.version));
            }
            Verb::Reload => {
                if !ended.success {
                    self.reload()?;
                }
                self.has_rules_of(0)?;
            }
            Verb::Learn => {
                self.reload()?;
                self.learns()?;
                self.learn_address()?;
            }
            Verb::Unbind if !ended.success => match number % 2 {
                0 => self.reload()?,
                _ => self.delete()?,
            },
            Verb::Bind | Verb::BindLearning if !ended.success => match number % 3 {
                0 if !is_bound(&self.scene) => self.bind()?,
                1 => self.reload()?,
                _ => self.delete()?,
            },
            _ => {}
        }
        self.is_gone()
    }
}
