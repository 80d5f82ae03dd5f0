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
    let mut done = driver.reload().await.map_err(NetworkError::from)?;
    let ports = bindings.reload().await;
    learn::attend(&bindings, environment);
    done.extend(ports.map_err(NwfilterError::from)?);
    Ok(done)
}
