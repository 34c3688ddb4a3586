//! What the server has and how it is: `GET /v1/models`, `/v1/pearl`, `/health`, `/metrics`, and the playground's page.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::shared::Shared;

/// A model.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelEntry {
    /// The model's id.
    pub id: String,
    /// `model`.
    pub object: &'static str,
    /// When the server began, in seconds since 1970.
    pub created: u64,
    /// `pearlpoint`.
    pub owned_by: &'static str,
    /// Tokens of prompt and answer together, at most.
    pub max_model_len: usize,
}

/// The models: one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// `list`.
    pub object: &'static str,
    /// The model.
    pub data: Vec<ModelEntry>,
}

/// Whether the server works.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`, or `stopping` while the last answers are given.
    pub status: &'static str,
}

/// A vector that requests may name.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VectorEntry {
    /// Its name.
    pub name: String,
    /// The sites at which it has a direction.
    pub sites: Vec<String>,
    /// The sites that are steered where a request names none.
    pub default_sites: Vec<String>,
    /// Whether strengths may be in norms of the residual stream (`0.4n`).
    pub has_norms: bool,
    /// How it was made.
    pub method: String,
}

/// A probe that requests may name.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProbeEntry {
    /// Its name.
    pub name: String,
    /// The label that it reads.
    pub label: String,
    /// Its classes.
    pub classes: Vec<String>,
    /// The site that it reads.
    pub site: String,
    /// The tokens that it was fitted on.
    pub fitted_on: String,
    /// The probability from which on a class is flagged, by class.
    pub threshold: std::collections::BTreeMap<String, f64>,
}

/// What requests may name.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LibraryList {
    /// The model's id.
    pub model: String,
    /// SHA-256 of its weights.
    pub model_hash: String,
    /// Blocks of the model.
    pub blocks: usize,
    /// Vectors.
    pub vectors: Vec<VectorEntry>,
    /// Probes.
    pub probes: Vec<ProbeEntry>,
    /// Plans.
    pub plans: Vec<String>,
    /// Policies of `pearl constructive fit`.
    pub policies: Vec<String>,
}

fn entry(shared: &Shared) -> ModelEntry {
    ModelEntry {
        id: shared.id.clone(),
        object: "model",
        created: shared.created,
        owned_by: "pearlpoint",
        max_model_len: shared.context(),
    }
}

pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: vec![entry(&shared)] })
}

pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    id: std::result::Result<Path<String>, PathRejection>,
) -> Result<Json<ModelEntry>, ApiError> {
    let Path(id) = id.map_err(|error| ApiError::field("id", error.body_text(), "a model's id, in UTF-8"))?;
    shared.check_model(Some(&id))?;
    Ok(Json(entry(&shared)))
}

pub(super) async fn library(State(shared): State<Arc<Shared>>) -> Result<Json<LibraryList>, ApiError> {
    let library = &shared.library;
    let mut vectors = Vec::new();
    for name in library.vector_names() {
        let vector = library.vector(&name, "vector")?;
        vectors.push(VectorEntry {
            name,
            sites: vector.directions.keys().map(ToString::to_string).collect(),
            default_sites: vector.default_sites().iter().map(ToString::to_string).collect(),
            has_norms: vector.directions.values().all(|direction| direction.residual_norm.is_some()),
            method: vector.method.clone(),
        });
    }
    let mut probes = Vec::new();
    for name in library.probe_names() {
        let (probe, _) = library.probe(&name, "probe")?;
        probes.push(ProbeEntry {
            name,
            label: probe.source.label.clone(),
            classes: probe.classes.clone(),
            site: probe.source.site.to_string(),
            fitted_on: probe.source.tokens.to_string(),
            threshold: probe.threshold.clone(),
        });
    }
    Ok(Json(LibraryList {
        model: shared.id.clone(),
        model_hash: shared.model.hash.clone(),
        blocks: shared.model.decoder.architecture().blocks.len(),
        vectors,
        probes,
        plans: library.plan_names(),
        policies: library.policy_names(),
    }))
}

pub(super) async fn health(State(shared): State<Arc<Shared>>) -> Json<Health> {
    let status = if shared.queue.is_closed() { "stopping" } else { "ok" };
    Json(Health { status })
}

pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    shared.metrics.preparing.set(shared.queue.lengths().1);
    shared.metrics.held_bytes.set(shared.budget.held());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics.text())
        .into_response()
}

/// The playground: one page without foreign parts.
const PLAYGROUND: &str = include_str!("playground.html");

/// The page may load nothing, and may talk to this server only.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn playground() -> Response {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(PLAYGROUND)).into_response()
}
