//! `netlaunch nwfilter`: network filters, from the command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;
use tokio::runtime::Runtime;

use super::args::NwfilterVerb;
use super::document;
use super::environment::Environment;
use super::nwfilter_check::check;
use super::nwfilter_config::{self, NwfilterConfig};
use super::nwfilter_error::NwfilterError;
use super::nwfilter_explain::explain;
use super::table::table;
use super::{Failure, learn, print, print_json, print_text};
use crate::binding::{BindingSettings, Bindings, Damaged, Learner, Status};
use crate::definitions::Origin;
use crate::facts::FirewallScript;
use crate::firewall::PortCounts;
use crate::nwfilter::{
    Binding, Broken, Change, Definition, Draft, FilterName, FilterStore, to_xml,
};
use crate::plan::GuestFilter;
use crate::types::{Mac, Uuid};

/// The version of what `list --json` prints.
const LIST_VERSION: u32 = 1;

/// Does what `netlaunch nwfilter` is asked for.
pub(super) fn nwfilter(
    verb: &NwfilterVerb,
    verbose: bool,
    environment: &Environment,
    runtime: impl FnOnce() -> Result<Runtime, Failure>,
) -> Result<u8, Failure> {
    let config_dir = environment.config_dir()?.ok_or(NwfilterError::NoDirectory)?;
    let store = FilterStore::new(&config_dir);
    let bindings = || bindings(&config_dir, environment);
    match verb {
        NwfilterVerb::List { json } => {
            let (definitions, broken) = store.list().map_err(NwfilterError::from)?;
            list(*json, rows(&definitions, &broken))?;
        }
        NwfilterVerb::Dumpxml(arg) => {
            let definition = store.get(&arg.name).map_err(NwfilterError::from)?;
            print(to_xml(&definition.filter).as_bytes())?;
        }
        NwfilterVerb::Define { file } => {
            let xml = document::read(file).map_err(NwfilterError::from)?;
            let bindings = bindings()?;
            let change = runtime()?.block_on(define(&bindings, &xml, file, None));
            learn::attend(&bindings, environment);
            say_defined(&change?);
        }
        NwfilterVerb::Undefine(arg) => {
            let bindings = bindings()?;
            let undefined = runtime()?.block_on(undefine(&bindings, &arg.name));
            learn::attend(&bindings, environment);
            undefined?;
        }
        NwfilterVerb::BindingCreate { wait, file } => {
            let xml = document::read(file).map_err(NwfilterError::from)?;
            let mut binding = Binding::parse(&xml)
                .map_err(|error| NwfilterError::BindingDocument { path: file.clone(), error })?;
            // libvirt's schema wants one in what binding-dumpxml prints.
            if let Some(owner) = &mut binding.owner {
                owner.uuid.get_or_insert_with(|| Uuid::random(&mut rand::rng()));
            }
            let bindings = bindings()?;
            let learner = runtime()?.block_on(learn::bind(&bindings, &binding, *wait, environment));
            if let Some(learner) = learner? {
                let address = learner.address(&bindings)?;
                print(format!("{address}\n").as_bytes())?;
            }
        }
        NwfilterVerb::BindingDelete(arg) => {
            let bindings = bindings()?;
            let deleted = runtime()?.block_on(bindings.release(&arg.port));
            // One that failed has ended who learnt.
            learn::attend(&bindings, environment);
            deleted.map_err(NwfilterError::from)?;
        }
        NwfilterVerb::BindingLearn { port, handed } => {
            // Before anything else is opened.
            let handed = learn::handed(handed)?;
            let bindings = bindings()?;
            runtime()?.block_on(learn::learn(&bindings, port, handed))?;
        }
        NwfilterVerb::BindingList { json: true } => {
            let bindings = bindings()?;
            let listed = Listed::read(&bindings)?;
            let ports = listed.ports.iter().map(|(status, _)| status);
            let counts = runtime()?.block_on(bindings.counts(ports));
            print_bindings(&bindings, &listed, &counts)?;
        }
        NwfilterVerb::BindingList { json: false } => list_bindings(&bindings()?)?,
        NwfilterVerb::BindingDumpxml(arg) => {
            let bindings = bindings()?;
            let status = bindings.get(&arg.port).map_err(NwfilterError::from)?;
            let binding = bindings.binding(&status).map_err(NwfilterError::from)?;
            print(binding.to_xml().as_bytes())?;
        }
        NwfilterVerb::Edit(arg) => {
            let old = store.get(&arg.name).map_err(NwfilterError::from)?;
            let before = to_xml(&old.filter);
            let bindings = bindings()?;
            let define =
                async |xml: &[u8], source: &Path| define(&bindings, xml, source, Some(&old)).await;
            let edit = document::edit(&arg.name, &before, environment, define);
            let edited = runtime()?.block_on(edit);
            learn::attend(&bindings, environment);
            match edited.map_err(NwfilterError::from)? {
                Some(change) => say_defined(&change),
                None => say_unchanged(&arg.name),
            }
        }
        NwfilterVerb::Explain(args) => explain(&store, args, verbose)?,
        NwfilterVerb::Check { what } => {
            let file = config_dir.join(nwfilter_config::FILE_NAME);
            let backend = nwfilter_config::read(&file).map_err(NwfilterError::from)?;
            check(&store, what, backend.firewall_backend)?;
        }
    }
    Ok(0)
}

/// The driver of filters as nwfilter.conf sets it.
pub(super) fn bindings(
    config_dir: &Path,
    environment: &Environment,
) -> Result<Bindings, NwfilterError> {
    let NwfilterConfig { firewall_backend, enable_trace, enable_counters } =
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

/// A guest's filter before there is a port for it.
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
        // The kernel gives the tap its number when it is made.
        let Ok(port) = "nltap0".parse() else { return Ok(None) };
        let config_dir = environment.config_dir()?.ok_or(NwfilterError::NoDirectory)?;
        let binding = Binding {
            owner: None,
            port,
            mac: mac.unwrap_or_else(|| Mac::random(&mut rand::rng())),
            filter: filter.name.clone(),
            parameters: filter.parameters.clone(),
        };
        Ok(Some(Filtered { bindings: bindings(&config_dir, environment)?, binding }))
    }

    /// Whether it makes rules.
    pub(super) fn check(&self) -> Result<(), NwfilterError> {
        Ok(self.bindings.check(&self.binding)?)
    }

    /// What setting it would run.
    pub(super) fn scripts(&self) -> Result<Vec<FirewallScript>, NwfilterError> {
        let scripts = self.bindings.scripts(&self.binding)?;
        Ok(scripts.into_iter().map(FirewallScript::from).collect())
    }
}

/// Defines the filter of a document, in place of `edited` where that was edited.
async fn define(
    bindings: &Bindings,
    xml: &[u8],
    source: &Path,
    edited: Option<&Definition>,
) -> Result<Change, NwfilterError> {
    // Mistakes are told before anything is made.
    let draft = Draft::read(xml, source, &mut rand::rng())?;
    bindings.commit(|store| Ok(store.plan_define(draft, edited)?)).await
}

async fn undefine(bindings: &Bindings, name: &FilterName) -> Result<(), NwfilterError> {
    // Looking first keeps a store from being made for nothing.
    bindings.store().check_own(name)?;
    let change =
        bindings.commit(|store| Ok::<_, NwfilterError>(store.plan_undefine(name)?)).await?;
    if change.new.is_some() {
        tracing::info!("the filter {name} is netlaunch's own again");
    }
    Ok(())
}

/// The ports that have a filter.
struct Listed {
    /// Those that can be shown.
    ports: Vec<(Status, Binding)>,
    /// The statuses that cannot be used.
    damaged: Vec<Damaged>,
}

impl Listed {
    fn read(bindings: &Bindings) -> Result<Self, NwfilterError> {
        let (all, mut damaged) = bindings.list_all()?;
        let mut ports = Vec::new();
        for status in all {
            match bindings.binding(&status) {
                Ok(binding) => ports.push((status, binding)),
                Err(error) => damaged.push(bindings.damaged(&status, error)),
            }
        }
        Ok(Listed { ports, damaged })
    }
}

/// Prints the ports that have a filter as one JSON object.
fn print_bindings(
    bindings: &Bindings,
    listed: &Listed,
    counts: &BTreeMap<u32, PortCounts>,
) -> Result<(), Failure> {
    let port = |(status, binding): &(Status, Binding)| {
        json!({
            "port": status.port,
            "index": status.index,
            "filter": binding.filter,
            "mac": binding.mac,
            "owner": binding.owner.as_ref().map(|owner| owner.name.to_string()),
            "backend": status.backend,
            "learning": bindings.learner(status).map(|learner| json!({
                "address": learner.address,
                "until": learner.until,
                "pid": learner.pid,
                "error": learner.failed,
                "refused": learner.refused,
            })),
            "counters": counts.get(&status.index),
        })
    };
    let damaged = |damaged: &Damaged| {
        json!({
            "port": damaged.port,
            "file": damaged.path,
            "error": damaged.error.to_string(),
        })
    };
    let list = json!({
        "version": LIST_VERSION,
        "bindings": listed.ports.iter().map(port).collect::<Vec<_>>(),
        "damaged": listed.damaged.iter().map(damaged).collect::<Vec<_>>(),
    });
    print_json(&list)
}

/// Shows the ports that have a filter.
fn list_bindings(bindings: &Bindings) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let listed = Listed::read(bindings)?;
    for (status, binding) in &listed.ports {
        let learnt = match bindings.learner(status) {
            None => "-".to_owned(),
            Some(Learner { failed: Some(_), .. }) => "failed, off".to_owned(),
            Some(Learner { pid: None, .. }) => "nobody learns".to_owned(),
            Some(Learner { address: Some(address), .. }) => address.to_string(),
            Some(Learner { refused: Some(refused), .. }) => format!("learning; {refused}"),
            Some(Learner { address: None, .. }) => "learning".to_owned(),
        };
        rows.push([
            status.port.to_string(),
            binding.filter.to_string(),
            binding.mac.to_string(),
            status.backend.to_string(),
            learnt,
        ]);
    }
    for damaged in &listed.damaged {
        let port = damaged.port.as_ref().map_or("?", |port| port.as_str());
        rows.push([port, "damaged", "-", "-", "-"].map(str::to_owned));
    }
    let header = ["PORT", "FILTER", "MAC", "BACKEND", "LEARNT"];
    print_text(&table(header, &rows, &[4], &[1]))?;
    for damaged in &listed.damaged {
        tracing::warn!("{}", damaged.error);
    }
    Ok(())
}

/// Says where the definition is.
fn say_defined(change: &Change) {
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

/// What `list` says of one filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    name: FilterName,
    origin: &'static str,
    /// These are `None` where the definition cannot be read.
    uuid: Option<Uuid>,
    chain: Option<String>,
    priority: Option<i32>,
    /// The definition's file; `None` for a stock filter.
    file: Option<PathBuf>,
    /// Why the definition cannot be used.
    error: Option<String>,
}

/// All filters by name, those with it that cannot be read.
fn rows(definitions: &[Definition], broken: &[Broken]) -> Vec<Row> {
    let defined = definitions.iter().map(|Definition { filter, origin }| {
        let (origin, file) = match origin {
            Origin::BuiltIn => ("stock", None),
            Origin::File(path) => ("user", Some(path.clone())),
        };
        Row {
            name: filter.name.clone(),
            origin,
            uuid: Some(filter.uuid),
            chain: Some(filter.chain.to_string()),
            priority: Some(filter.priority),
            file,
            error: None,
        }
    });
    let unusable = broken.iter().map(|broken| Row {
        name: broken.name.clone(),
        origin: "broken",
        uuid: None,
        chain: None,
        priority: None,
        file: None,
        error: Some(broken.error.to_string()),
    });
    let mut rows: Vec<Row> = defined.chain(unusable).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

fn list(json: bool, rows: Vec<Row>) -> Result<(), Failure> {
    if json {
        let all = json!({ "version": LIST_VERSION, "filters": rows });
        return print_json(&all);
    }
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let row = |row: &Row| {
        [
            row.name.to_string(),
            row.origin.to_owned(),
            or_dash(row.chain.clone()),
            or_dash(row.uuid.map(|uuid| uuid.to_string())),
        ]
    };
    // The priority is left to the JSON form, so that each stock filter has one line.
    let header = ["NAME", "FROM", "CHAIN", "UUID"];
    let text = table(header, &rows.iter().map(row).collect::<Vec<_>>(), &[], &[0, 3]);
    print_text(&text)?;
    for error in rows.iter().filter_map(|row| row.error.as_ref()) {
        tracing::warn!("{error}");
    }
    Ok(())
}
