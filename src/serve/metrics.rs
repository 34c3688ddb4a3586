//! Counters, gauges and histograms of the server, as Prometheus reads them (text format 0.0.4).

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// A count that only grows.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds to the count.
    pub fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }
}

/// A number as it is now.
#[derive(Default)]
pub(super) struct Gauge(AtomicUsize);

impl Gauge {
    /// Sets the number.
    pub fn set(&self, value: usize) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds one, and gives the new number.
    pub fn up(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes one away.
    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Upper bounds of a histogram's buckets, in seconds.
const BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Durations, counted in buckets.
#[derive(Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        if let Some(at) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.buckets[at].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(duration.as_micros() as u64, Ordering::Relaxed);
    }

    fn write(&self, text: &mut String, name: &str, help: &str) {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut sum = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            sum += bucket.load(Ordering::Relaxed);
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {sum}");
        }
        // A duration that is being counted may be in a bucket already.
        let count = self.count.load(Ordering::Relaxed).max(sum);
        let seconds = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(
            text,
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {seconds}\n{name}_count {count}"
        );
    }
}

/// All that is measured.
#[derive(Default)]
pub(super) struct Metrics {
    /// Requests, by what they were answered with.
    pub requests: [Counter; 4],
    /// Open connections.
    pub connections: Gauge,
    /// Complete answers.
    pub answers: Counter,
    /// Answers that nobody waited for any more.
    pub abandoned: Counter,
    /// Answers that failed inside the server.
    pub failed: Counter,
    /// Requests that were refused since the queue or the memory for requests was full.
    pub refused: Counter,
    /// Tokens of prompts.
    pub prompt_tokens: Counter,
    /// Tokens of prompts that came from the cache.
    pub cached_tokens: Counter,
    /// Tokens of answers.
    pub generated: Counter,
    /// Rows in the batch.
    pub rows: Gauge,
    /// Answers that wait.
    pub waiting: Gauge,
    /// Answers whose steering is made ready.
    pub preparing: Gauge,
    /// Bytes that requests hold.
    pub held_bytes: Gauge,
    /// Bytes of kept prefixes.
    pub cache_bytes: Gauge,
    /// Seconds of a forward pass.
    pub passes: Histogram,
    /// Seconds from a row's beginning to its first token.
    pub first_token: Histogram,
    /// Seconds from a token of a row to the next.
    pub tokens: Histogram,
}

/// The names of [`Metrics::requests`], by the first digit of the status.
const STATUS: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

impl Metrics {
    /// Counts a response.
    pub fn responded(&self, status: u16) {
        let class = usize::from(status / 100).saturating_sub(2);
        if let Some(counter) = self.requests.get(class) {
            counter.add(1);
        }
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let name = "pearl_requests_total";
        let _ = writeln!(text, "# HELP {name} Responses, by their status.\n# TYPE {name} counter");
        for (class, counter) in STATUS.iter().zip(&self.requests) {
            let _ = writeln!(text, "{name}{{status=\"{class}\"}} {}", counter.0.load(Ordering::Relaxed));
        }
        for (name, help, counter) in [
            ("pearl_answers_total", "Complete answers.", &self.answers),
            ("pearl_answers_abandoned_total", "Answers that nobody waited for any more.", &self.abandoned),
            ("pearl_answers_failed_total", "Answers that failed inside the server.", &self.failed),
            (
                "pearl_requests_refused_total",
                "Requests refused by a full queue or full memory.",
                &self.refused,
            ),
            ("pearl_prompt_tokens_total", "Tokens of prompts.", &self.prompt_tokens),
            ("pearl_prompt_tokens_cached_total", "Tokens of prompts from the cache.", &self.cached_tokens),
            ("pearl_generated_tokens_total", "Tokens of answers.", &self.generated),
        ] {
            let value = counter.0.load(Ordering::Relaxed);
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
        }
        for (name, help, gauge) in [
            ("pearl_connections", "Open connections.", &self.connections),
            ("pearl_rows", "Rows in the batch.", &self.rows),
            ("pearl_waiting", "Answers that wait for a row.", &self.waiting),
            ("pearl_preparing", "Answers whose steering is made ready.", &self.preparing),
            ("pearl_request_bytes", "Bytes that requests hold.", &self.held_bytes),
            ("pearl_cache_bytes", "Bytes of kept prefixes.", &self.cache_bytes),
        ] {
            let value = gauge.0.load(Ordering::Relaxed);
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        self.passes.write(&mut text, "pearl_pass_seconds", "Seconds of a forward pass.");
        let help = "Seconds from a row's beginning to its first token.";
        self.first_token.write(&mut text, "pearl_first_token_seconds", help);
        self.tokens.write(&mut text, "pearl_token_seconds", "Seconds from a token of a row to the next.");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::default();
        for millis in [1, 3, 3, 70_000] {
            metrics.passes.observe(Duration::from_millis(millis));
        }
        metrics.responded(200);
        metrics.responded(404);
        let text = metrics.text();
        for line in [
            "pearl_pass_seconds_bucket{le=\"0.0005\"} 0",
            "pearl_pass_seconds_bucket{le=\"0.001\"} 1",
            "pearl_pass_seconds_bucket{le=\"0.005\"} 3",
            "pearl_pass_seconds_bucket{le=\"60\"} 3",
            "pearl_pass_seconds_bucket{le=\"+Inf\"} 4",
            "pearl_pass_seconds_sum 70.007",
            "pearl_requests_total{status=\"2xx\"} 1",
            "pearl_requests_total{status=\"4xx\"} 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in {text}");
        }
    }
}
