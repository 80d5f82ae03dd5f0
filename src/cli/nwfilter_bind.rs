//! The verbs that put a filter on a port, replace it, and remove it.

use std::path::Path;

use super::args::BindArgs;
use super::environment::Environment;
use super::failure::Failure;
use super::learn::{self, BindingChange};
use super::nwfilter_error::NwfilterError;
use super::{editor, print, runtime};
use crate::nwfilter::port::{BindingError, Bindings, GuestMac, wait_for_bridge};
use crate::nwfilter::{Binding, Owner};
use crate::types::{InterfaceName, Mac, Uuid};

/// Puts the filter of a document on its port.
pub(super) fn bind_document(
    bindings: &Bindings,
    file: &Path,
    change: BindingChange,
    wait: bool,
    environment: &Environment,
) -> Result<(), Failure> {
    let xml = editor::read(file)?;
    let mut binding = Binding::parse(&xml)
        .map_err(|error| NwfilterError::BindingDocument { path: file.to_owned(), error })?;
    // The schema of libvirt demands a UUID in the output of binding-dumpxml.
    if let Some(owner) = &mut binding.owner {
        owner.uuid.get_or_insert_with(|| Uuid::random(&mut rand::rng()));
    }
    let runtime = runtime()?;
    let bound = learn::bind(bindings, &binding, change, wait, environment);
    let waiter = runtime.block_on(bound)?;
    runtime.block_on(print_address(waiter, bindings))
}

/// Puts a filter on a port, as the command line says.
pub(super) fn bind(
    bindings: &Bindings,
    args: &BindArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    let runtime = runtime()?;
    let waiter = runtime.block_on(async {
        let port = &args.port;
        if args.wait {
            // A mistake is reported now, and not when the port comes.
            let sample = || Mac::random(&mut rand::rng());
            let mac = args.mac.unwrap_or_else(sample);
            bindings.check(&new_binding(args, mac))?;
            bindings.check_lock().await?;
            let waiting = || tracing::info!("waiting until the interface {port} is on a bridge");
            wait_for_bridge(port, waiting).await?;
        }
        let binding = new_binding(args, mac(bindings, args).await?);
        let change =
            if args.replace { BindingChange::CreateOrReplace } else { BindingChange::Create };
        learn::bind(bindings, &binding, change, args.wait, environment).await
    })?;
    runtime.block_on(print_address(waiter, bindings))
}

/// Returns the binding of the command line for a guest with this MAC address.
fn new_binding(args: &BindArgs, mac: Mac) -> Binding {
    Binding {
        owner: owner(&args.port),
        port: args.port.clone(),
        linkdev: None,
        mac,
        filter: args.filter.clone(),
        parameters: args.param.clone(),
    }
}

/// Returns an owner for a port whose guest netlaunch does not know: the schema of libvirt demands
/// one.
pub(super) fn owner(port: &InterfaceName) -> Option<Owner> {
    let name = port.as_str().parse().ok()?;
    Some(Owner { name, uuid: Some(Uuid::random(&mut rand::rng())) })
}

/// Returns the guest's MAC address, and reports its source if netlaunch finds it.
async fn mac(bindings: &Bindings, args: &BindArgs) -> Result<Mac, NwfilterError> {
    if let Some(mac) = args.mac {
        return Ok(mac);
    }
    // A second binding is refused anyway, and the address would then be of no use.
    if !args.replace && bindings.get(&args.port).is_ok() {
        return Err(BindingError::Bound(args.port.clone()).into());
    }
    let GuestMac { mac, source } = bindings.guest_mac(&args.port).await?;
    tracing::info!("the guest of the port {} has the MAC address {mac}: {source}", args.port);
    Ok(mac)
}

/// Prints the address of the guest once its rules are in force.
async fn print_address(
    waiter: Option<learn::AddressWaiter>,
    bindings: &Bindings,
) -> Result<(), Failure> {
    match waiter {
        Some(waiter) => print(format!("{}\n", waiter.address(bindings).await?).as_bytes()),
        None => Ok(()),
    }
}

/// Removes the filter of a port.
pub(super) fn unbind(
    bindings: &Bindings,
    port: &InterfaceName,
    environment: &Environment,
) -> Result<(), Failure> {
    let bridge = bindings.get(port).ok().and_then(|status| status.bridge);
    let deleted = runtime()?.block_on(bindings.release(port));
    learn::restart_missing(bindings, environment);
    deleted?;
    // A guard that cannot be read closes ports as well; the release has reported it.
    let guard = bindings.guard().ok().flatten();
    if guard.is_some_and(|guard| guard.closes(port, bridge.as_ref())) {
        tracing::info!(
            "the guard of the watch rules closes the port {port} until it has a filter; netlaunch nwfilter watch gives it one"
        );
    }
    Ok(())
}
