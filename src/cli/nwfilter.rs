//! `netlaunch nwfilter`: network filters, from the command line.
//!
//! Each verb is one function. The [`FilterStore`] has the definitions, [`Bindings`] the filters of
//! ports. A change of a definition also changes the rules of the ports that use the filter, so
//! [`Bindings::commit`] makes both changes or none.
//!
//! A verb that changes ports may end a learner process, and so may a verb that fails. Each of them
//! starts the missing learner processes again before it reports its own error.

use std::path::Path;

use super::args::NwfilterVerb;
use super::editor;
use super::environment::Environment;
use super::failure::Failure;
use super::learn::BindingChange;
use super::nwfilter_bind::{bind, bind_document, unbind};
use super::nwfilter_check::check;
use super::nwfilter_config::{self, NwfilterConfig};
use super::nwfilter_error::NwfilterError;
use super::nwfilter_explain::explain;
use super::nwfilter_list::{list, rows};
use super::nwfilter_watch::{stop_watch, watch};
use super::{binding_counters, binding_list, learn, print, runtime};
use crate::launcher::plan::GuestFilter;
use crate::nwfilter::port::{BindingSettings, Bindings};
use crate::nwfilter::{
    Binding, Definition, DefinitionChange, FilterName, FilterStore, UncheckedFilter, to_xml,
};
use crate::sys::process::InheritedFds;
use crate::types::Mac;
use crate::types::facts::{FirewallScript, RulesOf};
use crate::xml::store::Origin;

/// Carries out a verb of `netlaunch nwfilter` and returns the exit status. `verbose` is whether
/// `explain` shows every rule that it tried.
pub(super) fn nwfilter(
    verb: &NwfilterVerb,
    verbose: bool,
    environment: &Environment,
    mut inherited: InheritedFds,
) -> Result<u8, Failure> {
    let config_dir = &environment.config_dir()?.ok_or(NwfilterError::NoDirectory)?;
    environment.say_directories(config_dir);
    let store = &FilterStore::new(config_dir);
    let bindings = || bindings(config_dir, environment);
    match verb {
        NwfilterVerb::List { json } => {
            let (definitions, broken) = store.list()?;
            list(*json, &rows(&definitions, &broken))?;
        }
        NwfilterVerb::Dumpxml(arg) => print(to_xml(&store.get(&arg.name)?.filter).as_bytes())?,
        NwfilterVerb::Define { file } => define_file(&bindings()?, file, environment)?,
        NwfilterVerb::Undefine(arg) => undefine(&bindings()?, &arg.name, environment)?,
        NwfilterVerb::Edit(arg) => edit(&bindings()?, &arg.name, environment)?,
        NwfilterVerb::BindingCreate { wait, file } => {
            bind_document(&bindings()?, file, BindingChange::Create, *wait, environment)?;
        }
        NwfilterVerb::BindingUpdate { wait, file } => {
            bind_document(&bindings()?, file, BindingChange::Replace, *wait, environment)?;
        }
        NwfilterVerb::Bind(args) => bind(&bindings()?, args, environment)?,
        NwfilterVerb::BindingDelete(arg) | NwfilterVerb::Unbind(arg) => {
            unbind(&bindings()?, &arg.port, environment)?;
        }
        NwfilterVerb::BindingLearn { port, handed } => {
            let inherited = learn::take_handed(handed, &mut inherited)?;
            let bindings = bindings()?;
            runtime()?.block_on(learn::learn(&bindings, port, inherited))?;
        }
        NwfilterVerb::BindingList { json, counters: true, watch } => {
            let bindings = bindings()?;
            runtime()?.block_on(binding_counters::counters(&bindings, *json, *watch))?;
        }
        NwfilterVerb::BindingList { json, .. } => {
            binding_list::list_bindings(*json, &bindings()?, &runtime()?)?;
        }
        NwfilterVerb::BindingDumpxml(arg) => {
            let bindings = bindings()?;
            let status = bindings.get(&arg.port)?;
            print(bindings.binding(&status)?.to_xml().as_bytes())?;
        }
        NwfilterVerb::Watch { stop: false } => watch(config_dir, &bindings()?, environment)?,
        NwfilterVerb::Watch { stop: true } => stop_watch(&bindings()?, environment)?,
        NwfilterVerb::Explain(args) => explain(store, bindings, args, verbose)?,
        NwfilterVerb::Check { what } => {
            let file = config_dir.join(nwfilter_config::FILE_NAME);
            check(store, what, nwfilter_config::read(&file)?.firewall_backend)?;
        }
    }
    Ok(0)
}

fn define_file(bindings: &Bindings, file: &Path, environment: &Environment) -> Result<(), Failure> {
    let xml = editor::read(file)?;
    let change = runtime()?.block_on(define(bindings, &xml, file, None));
    learn::restart_missing(bindings, environment);
    say_defined(&change?);
    Ok(())
}

fn undefine(
    bindings: &Bindings,
    name: &FilterName,
    environment: &Environment,
) -> Result<(), Failure> {
    let undefine = async {
        // This check first, because a commit makes the directory of definitions.
        bindings.store().check_own(name)?;
        bindings.commit(|store| Ok::<_, NwfilterError>(store.plan_undefine(name)?)).await
    };
    let change = runtime()?.block_on(undefine);
    if change.as_ref().is_ok_and(|change| change.new.is_some()) {
        tracing::info!("the filter {name} is netlaunch's own again");
    }
    learn::restart_missing(bindings, environment);
    change?;
    Ok(())
}

fn edit(bindings: &Bindings, name: &FilterName, environment: &Environment) -> Result<(), Failure> {
    let old = bindings.store().get(name)?;
    let before = to_xml(&old.filter);
    let define = async |xml: &[u8], source: &Path| define(bindings, xml, source, Some(&old)).await;
    let edited = runtime()?.block_on(editor::edit(name, &before, environment, define));
    learn::restart_missing(bindings, environment);
    match edited? {
        Some(change) => say_defined(&change),
        None => say_unchanged(name),
    }
    Ok(())
}

/// Returns the manager of ports and their filters, with the settings of nwfilter.conf.
pub(super) fn bindings(
    config_dir: &Path,
    environment: &Environment,
) -> Result<Bindings, NwfilterError> {
    let NwfilterConfig { firewall_backend, enable_trace, enable_counters, watch: _ } =
        nwfilter_config::read(&config_dir.join(nwfilter_config::FILE_NAME))?;
    let settings = BindingSettings {
        config_dir: config_dir.to_owned(),
        state_dir: environment.state_dir(),
        path: environment.path(),
        firewall_backend,
        enable_trace,
        enable_counters,
    };
    Ok(Bindings::new(settings).lock_limit(environment.lock_limit))
}

/// The filter of a guest, before its port exists.
pub(super) struct Filtered {
    bindings: Bindings,
    binding: Binding,
}

impl Filtered {
    pub(super) fn new(
        filter: &GuestFilter,
        mac: Option<Mac>,
        environment: &Environment,
    ) -> Result<Option<Self>, NwfilterError> {
        // A pattern: the kernel replaces the number when it makes the tap.
        let Ok(port) = "nltap0".parse() else { return Ok(None) };
        let config_dir = environment.config_dir()?.ok_or(NwfilterError::NoDirectory)?;
        let binding = Binding {
            owner: None,
            port,
            linkdev: None,
            mac: mac.unwrap_or_else(|| Mac::random(&mut rand::rng())),
            filter: filter.name.clone(),
            parameters: filter.parameters.clone(),
        };
        Ok(Some(Filtered { bindings: bindings(&config_dir, environment)?, binding }))
    }

    /// Checks that rules can be made of the filter.
    pub(super) fn check(&self) -> Result<(), NwfilterError> {
        Ok(self.bindings.check(&self.binding)?)
    }

    /// Returns the firewall scripts that would set the rules.
    pub(super) fn scripts(&self) -> Result<Vec<FirewallScript>, NwfilterError> {
        let scripts = self.bindings.scripts(&self.binding)?;
        Ok(scripts.into_iter().map(|script| script.shown(RulesOf::Port)).collect())
    }
}

/// Defines the filter of a document. `edited` is the definition that the user edited, if any.
async fn define(
    bindings: &Bindings,
    xml: &[u8],
    source: &Path,
    edited: Option<&Definition>,
) -> Result<DefinitionChange, NwfilterError> {
    // Mistakes in the document are reported before anything is written.
    let draft = UncheckedFilter::read(xml, source, &mut rand::rng())?;
    bindings.commit(|store| Ok(store.plan_define(draft, edited)?)).await
}

/// Reports the file of the definition, if the filter changed.
fn say_defined(change: &DefinitionChange) {
    match &change.new {
        new if *new == change.old => say_unchanged(&change.name),
        Some(Definition { origin: Origin::File(path), .. }) => {
            tracing::info!("the filter {} is defined in {}", change.name, path.display());
        }
        _ => {}
    }
}

fn say_unchanged(name: &FilterName) {
    tracing::info!("the filter {name} was not changed");
}
