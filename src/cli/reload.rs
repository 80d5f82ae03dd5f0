//! Reloads: sets the rules of all networks and of all filters of ports again, and attaches the taps
//! of launches.
//!
//! A failure of one part keeps no other part from its reload. The function returns the last error;
//! the notes of the other parts are then messages, because the caller gets the error alone.

use std::path::Path;
use std::sync::Arc;

use super::environment::Environment;
use super::network::manager;
use super::{Failure, learn, nwfilter, rejoin};
use crate::sys::netlink::Netlink;

/// Sets the rules of networks and of ports again, then attaches the taps of launches to their
/// bridges. Returns a sentence for each part that was missing.
pub(super) async fn reload(
    config_dir: &Path,
    environment: &Environment,
) -> Result<Vec<String>, Failure> {
    let manager = manager(config_dir, environment)?;
    let bindings = nwfilter::bindings(config_dir, environment)?;
    let applied = bindings.applied_texts().map(Arc::new);
    let manager = manager.applying(applied.clone());
    let networks = manager.reload().await;
    // After an error, a text of a network may have been undone.
    let bindings = bindings.applying(applied.filter(|_| networks.is_ok()));
    // The links are listed while nft applies the rules.
    let links = async { Netlink::open()?.links().await };
    let (ports, mut reloaded, links) = match bindings.reload_beside(links).await {
        Ok((mut reloaded, links)) => {
            (Ok(std::mem::take(&mut reloaded.notes)), Some(reloaded), links.ok())
        }
        Err(error) => (Err(error), None, None),
    };
    learn::restart_missing(&bindings, environment);
    let taps = rejoin::after_reload(&manager, &bindings, reloaded.as_mut(), links).await;
    match (networks, ports) {
        (Ok(networks), Ok(ports)) => Ok([networks, ports, taps].concat()),
        (Err(networks), Err(ports)) => {
            report(&[taps]);
            tracing::error!("{}", Failure::from(networks));
            Err(ports.into())
        }
        (Err(networks), Ok(ports)) => {
            report(&[ports, taps]);
            Err(networks.into())
        }
        (Ok(networks), Err(ports)) => {
            report(&[networks, taps]);
            Err(ports.into())
        }
    }
}

/// Reports the parts of a reload that succeeded, if another part failed.
fn report(done: &[Vec<String>]) {
    done.iter().flatten().for_each(|note| tracing::info!("{note}"));
}
