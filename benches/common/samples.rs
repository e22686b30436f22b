//! Something that was measured several times.

/// The values, smallest first.
#[derive(Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds one.
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// The one in the middle.
    pub fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Median and spread: `4.1 (3.9–4.4)`.
    pub fn show(&self, digits: usize) -> String {
        match (self.0.first(), self.0.last()) {
            (Some(min), Some(max)) => {
                format!("{:.digits$} ({min:.digits$}–{max:.digits$})", self.median())
            }
            _ => "–".to_owned(),
        }
    }
}

/// Samples by name, in the order in which the names came.
#[derive(Default)]
pub struct Named(Vec<(String, Samples)>);

#[allow(dead_code, reason = "not every benchmark shows steps")]
impl Named {
    /// Adds the times of the steps of a report, in seconds.
    pub fn add_steps(&mut self, report: &serde_json::Value) {
        for step in report["steps"].as_array().into_iter().flatten() {
            let (Some(id), Some(ms)) = (step["id"].as_str(), step["took_ms"].as_f64()) else { continue };
            let known = self.0.iter().position(|(name, _)| name == id).unwrap_or_else(|| {
                self.0.push((id.to_owned(), Samples::default()));
                self.0.len() - 1
            });
            self.0[known].1.add(ms / 1000.0);
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Samples)> {
        self.0.iter().map(|(name, samples)| (name.as_str(), samples))
    }
}
