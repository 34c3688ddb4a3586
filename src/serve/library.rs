//! The server's vectors, probes and plans: read from its folders once, and known to clients by name only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::ApiError;
use crate::artifact::TensorFile;
use crate::constructive::Policy;
use crate::dialogue::{Dialogue, Message, Role};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::probe::Probe;
use crate::steer::{Condition, Intervention, Plan, ProbeQuery, Probes, Vector, VectorSource};

/// Something of a folder: read, or refused with a reason.
type Entry<T> = std::result::Result<T, String>;

/// A probe, with what is said of its origin.
type NamedProbe = (Arc<Probe>, Option<String>);

/// What requests may name.
#[derive(Default)]
pub struct Library {
    vectors: BTreeMap<String, Entry<Arc<Vector>>>,
    probes: BTreeMap<String, Entry<NamedProbe>>,
    plans: BTreeMap<String, Entry<Plan>>,
    policies: BTreeMap<String, Entry<Arc<Policy>>>,
}

/// The file that a policy's folder has.
const POLICY: &str = "constructive.json";

/// Names that an error lists, at most.
const LISTED: usize = 20;

impl Library {
    /// Reads the vectors, probes (`*.safetensors`) and plans (`*.toml`, `*.json`) of folders; the name of each is its file's, without the
    /// ending. Folders in them that `pearl constructive fit` wrote are policies. `say` hears of what is left out, and why.
    ///
    /// # Errors
    /// A folder that can't be read; two files with one name.
    pub fn read(folders: &[PathBuf], model: &Model, say: &dyn Fn(String)) -> Result<Library> {
        let mut library = Library::default();
        let mut plans = Vec::new();
        for folder in folders {
            let entries = std::fs::read_dir(folder).map_err(Error::file(folder))?;
            let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            files.sort();
            for file in std::iter::once(folder).chain(&files).filter(|file| file.join(POLICY).is_file()) {
                let Some(name) = text(file.file_name()) else { continue };
                let policy = Policy::load(file).and_then(|policy| policy.check_model(model).map(|()| policy));
                let policy = policy.map(Arc::new).map_err(|error| error.to_string());
                insert(&mut library.policies, name, file, policy)?;
            }
            for file in files.into_iter().filter(|file| file.is_file()) {
                let (Some(name), Some(ending)) = (text(file.file_stem()), text(file.extension())) else {
                    continue;
                };
                match ending.as_str() {
                    "safetensors" => library.add(&name, &file, model)?,
                    "toml" | "json" if is_plan(&file) => plans.push((name, file)),
                    _ => {}
                }
            }
        }
        for (name, file) in plans {
            let plan = Plan::load(&file).and_then(|plan| library.with_files(plan, model));
            insert(&mut library.plans, name, &file, plan.map_err(|error| error.to_string()))?;
        }
        library.refusals().for_each(say);
        Ok(library)
    }

    /// Adds a vector or a probe; a file of another kind is passed over.
    fn add(&mut self, name: &str, file: &Path, model: &Model) -> Result<()> {
        let tensors = match TensorFile::open(file) {
            Ok(tensors) => tensors,
            // What it was meant to be isn't known.
            Err(error) => return insert(&mut self.vectors, name.into(), file, Err(error.to_string())),
        };
        match tensors.string("kind") {
            Ok("vector") => {
                let vector = Vector::load_for(file, model).map(Arc::new);
                insert(&mut self.vectors, name.into(), file, vector.map_err(|error| error.to_string()))
            }
            Ok("probe") => {
                let probe = load_probe(file, model).map(|probe| {
                    let guarantee = guarantee(file, &probe);
                    (Arc::new(probe), guarantee)
                });
                insert(&mut self.probes, name.into(), file, probe.map_err(|error| error.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// What was left out, a line each.
    fn refusals(&self) -> impl Iterator<Item = String> {
        let vectors =
            self.vectors.iter().filter_map(|(name, entry)| Some(("vector", name, entry.as_ref().err()?)));
        let probes =
            self.probes.iter().filter_map(|(name, entry)| Some(("probe", name, entry.as_ref().err()?)));
        let plans = self.plans.iter().filter_map(|(name, entry)| Some(("plan", name, entry.as_ref().err()?)));
        let policies =
            self.policies.iter().filter_map(|(name, entry)| Some(("policy", name, entry.as_ref().err()?)));
        vectors
            .chain(probes)
            .chain(plans)
            .chain(policies)
            .map(|(kind, name, why)| format!("{kind} {name} is left out: {why}"))
    }

    /// Names of the vectors.
    pub fn vector_names(&self) -> Vec<String> {
        names(&self.vectors)
    }

    /// Names of the probes.
    pub fn probe_names(&self) -> Vec<String> {
        names(&self.probes)
    }

    /// Names of the plans.
    pub fn plan_names(&self) -> Vec<String> {
        names(&self.plans)
    }

    /// Names of the policies.
    pub fn policy_names(&self) -> Vec<String> {
        names(&self.policies)
    }

    /// A policy by its name.
    ///
    /// # Errors
    /// No such name; a policy that was left out.
    pub(super) fn policy(&self, name: &str, field: &str) -> std::result::Result<Arc<Policy>, ApiError> {
        find(&self.policies, "policy", name, field).cloned()
    }

    /// A vector by its name. `field` names the place in the request.
    ///
    /// # Errors
    /// No such name; a vector that was left out.
    pub(super) fn vector(&self, name: &str, field: &str) -> std::result::Result<Arc<Vector>, ApiError> {
        find(&self.vectors, "vector", name, field).cloned()
    }

    /// A probe by its name, with what is promised of its threshold.
    ///
    /// # Errors
    /// No such name; a probe that was left out.
    pub(super) fn probe(
        &self,
        name: &str,
        field: &str,
    ) -> std::result::Result<(Arc<Probe>, Option<String>), ApiError> {
        find(&self.probes, "probe", name, field).cloned()
    }

    /// A plan by its name.
    ///
    /// # Errors
    /// No such name; a plan that was left out.
    pub(super) fn plan(&self, name: &str, field: &str) -> std::result::Result<Plan, ApiError> {
        find(&self.plans, "plan", name, field).cloned()
    }

    /// An intervention of a request, with the vectors and probes that it names.
    ///
    /// # Errors
    /// A vector in memory or a name that isn't here; ids of dialogues, which a request has none of.
    pub(super) fn resolve(
        &self,
        mut intervention: Intervention,
        field: &str,
    ) -> std::result::Result<Intervention, ApiError> {
        if !intervention.ids.is_empty() {
            return Err(ApiError::field(field, "ids of dialogues", "none: a request is one dialogue"));
        }
        if let Some(VectorSource::File(path)) = &intervention.vector {
            intervention.vector = Some(VectorSource::Memory(self.vector(&path.to_string_lossy(), field)?));
        }
        let mut probes = Probes::default();
        for query in queries(&intervention) {
            let (probe, _) = self.probe(&query.probe.to_string_lossy(), field)?;
            probes = probes.with(&query.probe, probe.as_ref().clone());
        }
        intervention.probes = probes;
        Ok(intervention)
    }

    /// A plan of the server's own folder, with its files: those of the folders by name, others by path.
    fn with_files(&self, plan: Plan, model: &Model) -> Result<Plan> {
        let mut interventions = Vec::new();
        for mut intervention in plan.interventions {
            if let Some(VectorSource::File(path)) = &intervention.vector {
                let vector = match self.vector(&path.to_string_lossy(), "plan") {
                    Ok(vector) => vector,
                    Err(error) if !path.exists() => return Err(error.into()),
                    Err(_) => Arc::new(Vector::load_for(path, model)?),
                };
                intervention.vector = Some(VectorSource::Memory(vector));
            }
            let mut probes = Probes::default();
            for query in queries(&intervention) {
                let probe = match self.probe(&query.probe.to_string_lossy(), "plan") {
                    Ok((probe, _)) => probe.as_ref().clone(),
                    Err(error) if !query.probe.exists() => return Err(error.into()),
                    Err(_) => load_probe(&query.probe, model)?,
                };
                probes = probes.with(&query.probe, probe);
            }
            intervention.probes = probes;
            interventions.push(intervention);
        }
        let plan = Plan { interventions };
        check_plan(&plan, model)?;
        Ok(plan)
    }
}

/// Refuses a plan that no request could use: sites, classes and bounds that its vectors and probes lack, ids of dialogues, and doses
/// that no reading sets.
fn check_plan(plan: &Plan, model: &Model) -> Result<()> {
    let hooks = plan.hooks_with(Probes::default(), model, &[], None)?;
    let dialogue = Dialogue::new("request", vec![Message::new(Role::User, "a")]);
    // A template may want more than a message; then requests are checked alone.
    let Ok(tokens) = model.chat.tokens(&dialogue, 0, None) else { return Ok(()) };
    for mut hook in hooks {
        hook.move_to(0);
        hook.check_prompt(&tokens)?;
    }
    Ok(())
}

/// Every query of an intervention.
pub(super) fn queries(intervention: &Intervention) -> Vec<&ProbeQuery> {
    let bounds = intervention.when.iter().flat_map(Condition::bounds).map(|bound| &bound.query);
    let constraints = intervention.probe.iter().map(|constraint| &constraint.query);
    let control = intervention.control.iter().map(|control| &control.probe);
    bounds.chain(constraints).chain(control).collect()
}

fn load_probe(file: &Path, model: &Model) -> Result<Probe> {
    let probe = Probe::load(file)?;
    let place = || format!("probe {}", file.display());
    model.check_origin(place(), "a probe", probe.source.origin())?;
    let (architecture, site) = (model.decoder.architecture(), probe.source.site);
    if !architecture.has(site) {
        let found = format!("it reads {site}, which the model does not have");
        return Err(Error::input(place(), found, "a probe of this model"));
    }
    let width = architecture.site_width(site);
    match probe.weight.ncols() == width {
        true => Ok(probe),
        false => {
            let found = format!("a probe of width {}", probe.weight.ncols());
            Err(Error::input(place(), found, format!("width {width}, the model's at {site}")))
        }
    }
}

/// What `pearl boundary map` promised of a probe's threshold, from the card that it saved beside the probe.
fn guarantee(file: &Path, probe: &Probe) -> Option<String> {
    let card = std::fs::read_to_string(file.with_file_name("boundary.json")).ok()?;
    let card: serde_json::Value = serde_json::from_str(&card).ok()?;
    let flagged = &card["flagged"];
    let value = flagged["threshold"]["value"].as_f64()?;
    let known = probe.threshold.get(flagged["class"].as_str()?)?;
    let promise = flagged["promise"].as_str()?;
    (card["label"].as_str() == Some(&probe.source.label) && *known == value).then(|| promise.to_owned())
}

fn text(part: Option<&std::ffi::OsStr>) -> Option<String> {
    part.and_then(|part| part.to_str()).map(str::to_owned)
}

/// Whether a settings file has interventions.
fn is_plan(file: &Path) -> bool {
    std::fs::read_to_string(file)
        .is_ok_and(|text| text.contains("[[intervention]]") || text.contains("\"intervention\""))
}

fn names<T>(entries: &BTreeMap<String, Entry<T>>) -> Vec<String> {
    entries.iter().filter(|(_, entry)| entry.is_ok()).map(|(name, _)| name.clone()).collect()
}

fn insert<T>(
    entries: &mut BTreeMap<String, Entry<T>>,
    name: String,
    file: &Path,
    entry: Entry<T>,
) -> Result<()> {
    match entries.insert(name.clone(), entry) {
        None => Ok(()),
        Some(_) => Err(Error::input(file.display(), format!("a second {name:?}"), "one file a name")),
    }
}

/// The entry of a name, with the ending of its file or without.
fn find<'a, T>(
    entries: &'a BTreeMap<String, Entry<T>>,
    kind: &str,
    name: &str,
    field: &str,
) -> std::result::Result<&'a T, ApiError> {
    let bare = [".safetensors", ".toml", ".json"].into_iter().find_map(|ending| name.strip_suffix(ending));
    match entries.get(name).or_else(|| entries.get(bare?)) {
        Some(Ok(found)) => Ok(found),
        Some(Err(why)) => {
            Err(ApiError::field(field, format_args!("{kind} {name:?} was left out: {why}"), "another"))
        }
        None if name.contains(['/', '\\']) => {
            Err(ApiError::field(field, format_args!("the path {name:?}"), "a name of the server's folder"))
        }
        None => {
            let mut known = names(entries);
            known.truncate(LISTED);
            let expected = match known.is_empty() {
                true => format!("none: the server has no {kind} (--vectors DIR)"),
                false => known.join(", "),
            };
            Err(ApiError::field(field, format_args!("no {kind} {name:?}"), expected).code("not_found"))
        }
    }
}
