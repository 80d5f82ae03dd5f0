//! Tries the programs of networks and filters, for `netlaunch probe`: the firewall's tools and
//! dnsmasq.
//!
//! Each trial runs in a network namespace that the probe makes for it, never in the host's. If this
//! process may make no such namespace, the tools only check the rules and the options, which
//! changes nothing. Each trial has a time limit. A success is cached until the next boot; a failure
//! is not.

use std::ffi::OsStr;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::Environment;
use crate::firewall::{FirewallBackend, Tools, try_in_own_network, usable};
use crate::network::dnsmasq::{check_dnsmasq, find_dnsmasq, try_dnsmasq};
use crate::sys::own_network::OwnNetwork;
use crate::sys::program::Lookup;
use crate::types::facts::{KernelFeature, Problem};

/// The time limit of one trial. It takes a tenth of a second.
const LIMIT: Duration = Duration::from_secs(10);

/// The results of the trials. The default value is that no trial was made.
#[derive(Debug, Default)]
pub(super) struct Trials {
    /// The path of dnsmasq.
    pub(super) dnsmasq_path: Option<PathBuf>,
    /// Whether networks have DHCP and DNS.
    pub(super) dnsmasq: KernelFeature,
    /// Whether nft sets rules.
    pub(super) nftables: KernelFeature,
    /// Whether the iptables tools set rules.
    pub(super) iptables: KernelFeature,
}

impl Trials {
    /// Returns the first usable firewall backend, or all reasons and the fix of the preferred one.
    pub(super) fn firewall(&self) -> KernelFeature {
        let (nft, iptables) = (&self.nftables, &self.iptables);
        if nft.usable || iptables.usable {
            let (name, usable) =
                if nft.usable { ("nftables", nft) } else { ("iptables", iptables) };
            let why = format!("{name}: {}", usable.why);
            return KernelFeature { usable: true, why, fix: None };
        }
        let why = format!("nftables: {}; iptables: {}", nft.why, iptables.why);
        KernelFeature { usable: false, why, fix: nft.fix.clone() }
    }
}

/// Tries dnsmasq and both firewall backends, one after the other. `is_admin` says whether this
/// process has CAP_NET_ADMIN, without which it can start no network.
pub(super) async fn try_programs(environment: &Environment, is_admin: bool) -> Trials {
    let path = environment.paths("PATH");
    let tools = Tools::find(&path);
    let mut backends = Vec::new();
    for backend in FirewallBackend::ORDER {
        backends.push(try_backend(environment, &tools, backend, is_admin).await);
    }
    let (dnsmasq_path, dnsmasq) = match find_dnsmasq(&path) {
        Err(problem) => (None, unusable(problem)),
        Ok(program) => {
            let feature = try_server(environment, &program, is_admin).await;
            (Some(program), feature)
        }
    };
    let [nftables, iptables] = <[KernelFeature; 2]>::try_from(backends).unwrap_or_default();
    Trials { dnsmasq_path, dnsmasq, nftables, iptables }
}

async fn try_backend(
    environment: &Environment,
    tools: &Tools,
    backend: FirewallBackend,
    is_admin: bool,
) -> KernelFeature {
    let (name, package, lookup) = match backend {
        FirewallBackend::Nftables => ("nft", "nftables", &tools.nft),
        FirewallBackend::Iptables => ("iptables-restore", "iptables", &tools.iptables_restore),
    };
    let install = format!("install the package {package}");
    let program = match found(lookup, name, &install) {
        Ok(program) => program,
        Err(problem) => return unusable(problem),
    };
    let own = try_in_own_network(tools, backend);
    let check = usable(tools, backend);
    let done = ("its rules were set in a network namespace", "it accepts a network's rules");
    tried(environment, (package, &program), is_admin, done, own, check).await
}

async fn try_server(environment: &Environment, program: &Path, is_admin: bool) -> KernelFeature {
    let own = try_dnsmasq(program);
    let check = check_dnsmasq(program, LIMIT);
    let done = ("it served in a network namespace", "it accepts a network's options");
    tried(environment, ("dnsmasq", program), is_admin, done, own, check).await
}

/// Carries out a trial of a program: `own` in an empty network namespace, or `check` if there can
/// be none. `done` has the words for the success of each.
async fn tried(
    environment: &Environment,
    (trial, program): (&str, &Path),
    is_admin: bool,
    done: (&str, &str),
    own: impl Future<Output = Result<(), Problem>>,
    check: impl Future<Output = Result<(), Problem>>,
) -> KernelFeature {
    let prober = environment.prober();
    let works = |why: &str| KernelFeature { usable: true, why: why.to_owned(), fix: None };
    if !is_admin {
        return unusable(Problem::new(
            "this user has no CAP_NET_ADMIN, so netlaunch starts no network and sets no rule",
            "run netlaunch as root",
        ));
    }
    if prober.has_worked(trial, program) {
        return works(done.0);
    }
    let (result, why) = match OwnNetwork::enter() {
        Ok(network) => {
            let result = tokio::time::timeout(LIMIT, own).await;
            drop(network);
            (result, done.0)
        }
        Err(error) => {
            tracing::debug!("cannot make a network namespace for a trial: {error}");
            (tokio::time::timeout(LIMIT, check).await, done.1)
        }
    };
    match result {
        Ok(Ok(())) => {
            if why == done.0 {
                prober.keep_success(trial, program);
            }
            works(why)
        }
        Ok(Err(problem)) => unusable(problem),
        Err(_) => unusable(Problem::new(
            format!("{} did not answer within {} s", program.display(), LIMIT.as_secs()),
            "run it by hand to see what it waits for",
        )),
    }
}

fn found(lookup: &Lookup, name: &str, install: &str) -> Result<PathBuf, Problem> {
    match lookup.problem(OsStr::new(name), install) {
        Some(problem) => Err(problem),
        None => Ok(lookup.clone().found().unwrap_or_else(|| name.into())),
    }
}

fn unusable(problem: Problem) -> KernelFeature {
    KernelFeature { usable: false, why: problem.why, fix: Some(problem.fix) }
}
