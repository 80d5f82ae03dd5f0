//! Putting back the rules of all networks and of all ports' filters.

use std::path::Path;

use super::environment::Environment;
use super::network::{NetworkError, driver};
use super::nwfilter_error::NwfilterError;
use super::{Failure, learn, nwfilter};

/// Puts the rules of networks and of ports' filters back; returns what was, a sentence each.
pub(super) async fn reload(
    config_dir: &Path,
    environment: &Environment,
) -> Result<Vec<String>, Failure> {
    let driver = driver(config_dir, environment)?;
    let bindings = nwfilter::bindings(config_dir, environment)?;
    // A failure of networks keeps no port's filter from being put back.
    let networks = driver.reload().await.map_err(NetworkError::from);
    let ports = bindings.reload().await.map_err(NwfilterError::from);
    learn::attend(&bindings, environment);
    match (networks, ports) {
        (Ok(networks), Ok(ports)) => Ok([networks, ports].concat()),
        (Err(networks), Err(ports)) => {
            tracing::error!("{networks}");
            Err(ports.into())
        }
        (Err(networks), Ok(_)) => Err(networks.into()),
        (Ok(_), Err(ports)) => Err(ports.into()),
    }
}
