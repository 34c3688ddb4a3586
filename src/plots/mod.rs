//! Plots: a table of an analysis in, a chart out. They compute nothing new.
//!
//! One file a plot; [`PLOTS`] is the table of them. A plot's input can be saved as JSON, so that a chart can be made again
//! without running a model.

pub mod active_learning;
pub mod attack_success;
pub mod attention_pattern;
pub mod auroc_grid;
pub mod belief_simplex;
pub mod chain_path;
pub mod constructive_score;
pub mod cosines;
pub mod cross_validation;
pub mod dose_curve;
pub mod dose_response;
pub mod grid_response;
pub mod interpolation;
pub mod layer_sweep;
pub mod lead_time;
pub mod logit_lens;
pub mod margins;
pub mod null_test;
pub mod pareto;
pub mod patching;
pub mod pca_scatter;
pub mod pearl_map;
pub mod rates;
pub mod reliability;
pub mod risk_map;
pub mod roc;
pub mod round_readings;
pub mod safe_and_satisfied;
mod site_axis;
pub mod token_map;
pub mod trajectory;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::report::Chart;

/// A line of the table.
pub struct Plot {
    /// Its name: that of its file.
    pub name: &'static str,
    draw: fn(&str) -> Result<Chart>,
}

impl Plot {
    /// The chart of a table, given as JSON.
    ///
    /// # Errors
    /// JSON that is no such table.
    pub fn chart(&self, table: &str) -> Result<Chart> {
        (self.draw)(table)
    }
}

/// Every plot.
pub const PLOTS: [Plot; 30] = [
    Plot { name: "active_learning", draw: |text| Ok(active_learning::chart(&table(text)?)) },
    Plot { name: "attack_success", draw: |text| Ok(attack_success::chart(&table(text)?)) },
    Plot { name: "attention_pattern", draw: |text| Ok(attention_pattern::chart(&table(text)?)) },
    Plot { name: "auroc_grid", draw: |text| Ok(auroc_grid::chart(&table(text)?)) },
    Plot { name: "belief_simplex", draw: |text| Ok(belief_simplex::chart(&table(text)?)) },
    Plot { name: "chain_path", draw: |text| Ok(chain_path::chart(&table(text)?)) },
    Plot { name: "constructive_score", draw: |text| Ok(constructive_score::chart(&table(text)?)) },
    Plot { name: "cosines", draw: |text| Ok(cosines::chart(&table(text)?)) },
    Plot { name: "cross_validation", draw: |text| Ok(cross_validation::chart(&table::<Vec<_>>(text)?)) },
    Plot { name: "dose_curve", draw: |text| Ok(dose_curve::chart(&table(text)?)) },
    Plot { name: "dose_response", draw: |text| Ok(dose_response::chart(&table(text)?)) },
    Plot { name: "grid_response", draw: |text| Ok(grid_response::chart(&table(text)?)) },
    Plot { name: "interpolation", draw: |text| Ok(interpolation::chart(&table(text)?)) },
    Plot { name: "layer_sweep", draw: |text| Ok(layer_sweep::chart(&table(text)?)) },
    Plot { name: "lead_time", draw: |text| Ok(lead_time::chart(&table(text)?)) },
    Plot { name: "logit_lens", draw: |text| Ok(logit_lens::chart(&table(text)?)) },
    Plot { name: "margins", draw: |text| Ok(margins::chart(&table(text)?)) },
    Plot { name: "null_test", draw: |text| Ok(null_test::chart(&table(text)?)) },
    Plot { name: "pareto", draw: |text| Ok(pareto::chart(&table(text)?)) },
    Plot { name: "patching", draw: |text| Ok(patching::chart(&table(text)?)) },
    Plot { name: "pca_scatter", draw: |text| Ok(pca_scatter::chart(&table(text)?)) },
    Plot { name: "pearl_map", draw: |text| Ok(pearl_map::chart(&table(text)?)) },
    Plot { name: "rates", draw: |text| Ok(rates::chart(&table(text)?)) },
    Plot { name: "reliability", draw: |text| Ok(reliability::chart(&table(text)?)) },
    Plot { name: "risk_map", draw: |text| Ok(risk_map::chart(&table(text)?)) },
    Plot { name: "roc", draw: |text| Ok(roc::chart(&table(text)?)) },
    Plot { name: "round_readings", draw: |text| Ok(round_readings::heat_map(&table(text)?)) },
    Plot { name: "safe_and_satisfied", draw: |text| Ok(safe_and_satisfied::chart(&table(text)?)) },
    Plot { name: "token_map", draw: |text| Ok(token_map::chart(&table(text)?)) },
    Plot { name: "trajectory", draw: |text| Ok(trajectory::chart(&table(text)?)) },
];

/// The plot of this name.
///
/// # Errors
/// A name that no plot has.
pub fn by_name(name: &str) -> Result<&'static Plot> {
    const { &PLOTS }
        .iter()
        .find(|plot| plot.name == name)
        .ok_or_else(|| Error::input("plot", format!("{name:?}"), PLOTS.map(|plot| plot.name).join(", ")))
}

fn table<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::input("plot", error, "the plot's table as JSON"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::SteeringGrid;
    use crate::report::charts::draw::svg;

    /// A small table of the plot.
    fn example(plot: &str) -> Value {
        let interval = json!({"value": 0.5, "low": 0.4, "high": 0.6});
        let auroc =
            json!({"name": "auroc", "value": 0.9, "low": 0.8, "high": 0.95, "n": 40, "split": "test"});
        let bins =
            json!([{"confidence": 0.7, "n": 10, "right": 6}, {"confidence": 0.9, "n": 10, "right": 9}]);
        let rows = json!([[0.1, 0.9], [0.2, 0.8]]);
        let map = json!({
            "label": "kind", "site": "1.resid_post",
            "plane": {"origin": [0.0, 0.0], "axes": [[1.0, 0.0], [0.0, 1.0]], "names": ["calm → cross", "across"]},
            "points": [{"x": 0.5, "y": 0.5, "label": "cross", "group": "g"}],
            "grid": {"x": [0.0, 1.0], "y": [0.0, 1.0]},
            "surfaces": [{"class": "calm", "values": rows}, {"class": "cross", "values": rows}],
            "levels": [0.5],
        });
        let steering = json!({
            "class": "cross", "from": "refuse", "to": "answer", "group": "topic", "chosen": 0,
            "trials": [{"site": "1.resid_post", "strength": "0.5n", "users": 9, "reached": 5, "broken": 1, "score": 0.2}],
            "conditions": [{
                "name": "unsteered", "short": "unsteered",
                "rates": [{"class": "cross", "outcome": "answer", "share": interval, "n": 9}],
                "broken": {"share": interval, "n": 9}, "off_topic": null,
                "scores": [{"beta": 1.0, "score": interval, "n": 9}],
            }],
            "nulls": [{"null": "random", "users": 9, "vector": {"name": "v", "reached": 8, "broken": 0},
                "draws": [{"name": "one", "reached": 2, "broken": 1}, {"name": "two", "reached": 3, "broken": 0}]}],
        });
        let effect = json!({
            "response": interval, "users": 9, "broken": 0.0, "repetition": 0.0, "divergence": interval,
            "divergence_of_answer": interval, "divergence_at_first": interval, "kept": null, "perplexity": 3.0, "texts": 5,
        });
        let file = SteeringGrid::load(std::path::Path::new("experiments/steering.toml")).unwrap();
        let mut trial = effect.clone();
        for (key, value) in [("arm", json!(file.arms[0].name)), ("site", json!("4.resid_post"))] {
            trial[key] = value;
        }
        for (key, value) in [("strength", json!("1n")), ("pareto", json!(true)), ("guarded", json!(true))] {
            trial[key] = value;
        }
        let found = json!({"unsteered": effect, "trials": [trial], "picked": [], "test": []});
        let flips = json!({
            "label": "kind", "tokens": "assistant.start", "given": 4, "pairs": 3, "passages": [],
        });
        let summary = json!({
            "site": "1.resid_post", "pairs": 3, "probe_flips": 3, "model_flips": 2, "model_breaks": 0,
            "control_flips": 0, "probe_at": interval, "model_at": interval, "gap": null, "gap_units": null,
        });
        let curve = json!({"log_loss": [[0.9, 0.5]], "accuracy": [[0.6, 0.8]]});
        match plot {
            "active_learning" => json!({"label": "kind", "site": "1.resid_post", "gain": {
                "campaign": crate::boundary::ActiveLearning::default(), "labels": [12, 20],
                "nearest": curve, "random": curve, "pool": 100, "test": 50,
            }}),
            "attack_success" => json!({"aim": "a word is said", "cells": [
                {"agent": "one", "defence": "none", "rounds": 1, "dialogues": 9, "success": interval, "touched": interval,
                    "rounds_played": 1.0, "constructive": null},
                {"agent": "one", "defence": "none", "rounds": 3, "dialogues": 9, "success": interval, "touched": interval,
                    "rounds_played": 2.0, "constructive": interval},
            ]}),
            "attention_pattern" => json!({
                "id": "a", "tokens": [{"text": "go", "turn": 0, "template": false}, {"text": " on", "turn": 0, "template": false}],
                "block": 1, "head": null, "heads": 2, "weights": [[1.0, 0.0], [0.4, 0.6]],
            }),
            "auroc_grid" => {
                json!({"label": "kind", "split": "topic held out", "sites": ["0.resid_post", "1.resid_post"], "rows": [
                    {"tokens": "last", "auroc": [auroc, null], "ngram": 0.6},
                    {"tokens": "mean(user)", "auroc": [auroc, auroc], "ngram": 0.6},
                ]})
            }
            "belief_simplex" => json!({"types": ["a", "b", "c"], "actions": ["go", "stop"], "cells": [
                {"belief": [1.0, 0.0, 0.0], "action": 0, "share": 1.0}, {"belief": [0.2, 0.3, 0.5], "action": 1, "share": 0.7}
            ]}),
            "constructive_score" => json!({"name": "all", "systems": [{
                "name": "one", "answers": 9, "satisfaction": interval, "risk": interval, "change": [], "rates": [],
                "constructive": [{"beta": 1.0, "value": interval}, {"beta": 2.0, "value": interval}],
            }], "crossings": [{"below": "one", "above": "two", "beta": 1.5, "value": 0.1}]}),
            "cosines" => json!({"names": ["a", "b"], "cosines": [[1.0, 0.2], [0.2, 1.0]]}),
            "cross_validation" => json!([
                {"name": "rows", "label": "kind", "sites": [["0.resid_post", [auroc]]], "folds": []}
            ]),
            "dose_curve" => {
                json!({"vector": "one → other", "site": "1.resid_post", "judge": "words", "outcomes": ["calmed", "broken"], "doses": [
                    {"strength": "0n", "shares": [interval, null], "n": 9}, {"strength": "0.5n", "shares": [interval, interval], "n": 9},
                ]})
            }
            "dose_response" | "null_test" | "rates" | "safe_and_satisfied" => steering,
            "grid_response" => {
                json!({"file": file, "found": found, "site": "4.resid_post", "quantity": "divergence"})
            }
            "interpolation" => json!({"found": flips, "summaries": [summary]}),
            "layer_sweep" => json!({"label": "kind", "split": "topic held out", "sites": [
                ["0.resid_post", auroc], ["1.resid_post", auroc]
            ], "ngram": 0.7, "shuffled": 0.5}),
            "lead_time" => {
                json!({"warnings": [{"monitor": "largest", "threshold": 1.0, "false_alarms": interval,
                "dialogues": 9, "earlier": interval, "in_time": interval, "lead": [1, 5, 2]}]})
            }
            "logit_lens" => json!({
                "id": "a", "sites": ["0.resid_post", "1.resid_post"], "positions": [3], "kl": [[0.5], [0.0]],
                "tokens": [{"text": "go", "turn": 0, "template": false}],
                "likeliest": [[[{"id": 4, "text": "on", "probability": 0.4}]], [[{"id": 5, "text": "to", "probability": 0.7}]]],
            }),
            "margins" => {
                json!({"label": "kind", "site": "1.resid_post", "classes": ["calm", "cross"], "margins": [
                    {"id": "a", "label": "calm", "read": "calm", "probability": 0.9, "distance": 2.0, "across": "cross"},
                    {"id": "b", "label": "cross", "read": "calm", "probability": 0.6, "distance": 0.5, "across": "cross"},
                ]})
            }
            "pareto" => json!({"file": file, "found": found}),
            "patching" => json!({
                "clean": [{"text": "go", "turn": 0, "template": false}], "corrupted": [{"text": "no", "turn": 0, "template": false}],
                "answer": "on", "other": "to", "sites": ["1.resid_post"], "clean_difference": 2.0,
                "corrupted_difference": -1.0, "differences": [[0.5]],
            }),
            "pca_scatter" => {
                json!({"label": "kind", "site": "1.resid_post", "tokens": "last", "variance": [0.6, 0.2], "points": [
                    {"x": 1.0, "y": 0.5, "label": "calm"}, {"x": -1.0, "y": -0.5, "label": "cross"},
                ]})
            }
            "chain_path" | "pearl_map" => {
                json!({"site": "1.resid_post", "axes": ["calm → cross", "refuse → answer"], "map": {
                    "samples": [], "grid": {"x": [0.0, 1.0], "y": [0.0, 1.0]}, "bandwidth": [0.1, 0.1], "tolerance": 0.1,
                    "satisfaction": rows, "risk": rows, "safe": [[true, false], [false, false]],
                    "satisfaction_low": rows, "risk_high": rows, "region": rows, "tracks": [],
                    "pearl": {"x": 0.0, "y": 0.0, "satisfaction": 0.9, "risk": 0.0, "satisfaction_low": 0.8, "risk_high": 0.1},
                    "spread": {"range": [[0.0, 0.1], [0.0, 0.1]], "extent": [0.1, 0.1], "found": 1.0, "area": 0.1},
                }})
            }
            "reliability" => json!({
                "label": "kind", "site": "1.resid_post", "method": "Platt", "bins": [bins, bins], "errors": [0.1, 0.05],
            }),
            "risk_map" => map,
            "roc" => {
                json!({"label": "kind", "site": "1.resid_post", "split": "topic held out", "n": 40, "curves": [
                    {"class": "cross", "index": 1, "points": [[0.0, 0.0], [0.2, 0.9], [1.0, 1.0]], "auroc": 0.85}
                ]})
            }
            "round_readings" => json!({"trajectories": [], "rounds": [
                {"condition": "whole", "probe": "one", "turn": 1, "dialogues": 9, "mean": interval, "fixed": 0.7, "refitted": null,
                    "cosine": null},
                {"condition": "whole", "probe": "one", "turn": 2, "dialogues": 9, "mean": interval, "fixed": 0.9, "refitted": 0.9,
                    "cosine": 0.8},
            ]}),
            "token_map" => json!({
                "id": "a", "label": "kind", "class": "cross", "fitted_at": "assistant.start",
                "sites": ["0.resid_post", "1.resid_post"], "probabilities": rows,
                "tokens": [{"text": "go", "turn": 0, "template": false}, {"text": " away", "turn": 0, "template": false}],
            }),
            "trajectory" => json!({"map": map, "drifts": [{
                "id": "a", "places": [[0.1, 0.2], [0.3, 0.4]], "probabilities": rows, "classes": ["calm", "cross"],
            }]}),
            other => panic!("no example of {other}"),
        }
    }

    #[test]
    fn every_plot_draws_its_table_and_says_what_a_wrong_one_lacks() {
        for plot in &PLOTS {
            let chart = by_name(plot.name).unwrap().chart(&example(plot.name).to_string()).unwrap();
            assert!(svg(&chart).unwrap().contains("<svg"), "{}", plot.name);
            // Names of classes and outcomes come from the table alone.
            let text = serde_json::to_string(&chart).unwrap();
            let is_grid = ["grid_response", "pareto"].contains(&plot.name);
            for word in ["benign", "malicious", "sensitive", "guided"] {
                assert!(is_grid || !text.contains(word), "{}: {word}", plot.name);
            }
            assert!(plot.chart("{\"no\": \"table\"}").is_err(), "{}", plot.name);
        }
        assert!(by_name("pie").is_err());
    }

    #[test]
    fn every_plot_is_a_file_and_every_file_a_plot() {
        let files = std::fs::read_dir("src/plots").unwrap();
        let mut files: Vec<String> = files
            .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .filter(|name| name != "mod" && name != "site_axis")
            .collect();
        files.sort();
        assert_eq!(files, PLOTS.map(|plot| plot.name));
    }
}
