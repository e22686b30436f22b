//! A picture of measured migrations: time against size, with the fitted line's interval.

use super::{Point, Prediction, Scaling};
use crate::duration::{human_bytes, human_ms};
use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 14.0;

/// An SVG image: every migration as a dot, predictions as bars with their interval.
pub fn picture(scaling: &Scaling) -> String {
    let widest = scaling.points.iter().map(|p| p.bytes).chain(scaling.predictions.iter().map(|p| p.bytes));
    let wide = widest.max().unwrap_or(1).max(1) as f64 * 1.05;
    let highest =
        scaling.points.iter().map(|p| p.took_ms).chain(scaling.predictions.iter().map(|p| p.high_ms));
    let high = highest.max().unwrap_or(1).max(1) as f64 * 1.05;
    let x = |b: u64| LEFT + b as f64 / wide * (WIDTH - LEFT - RIGHT);
    let y = |ms: u64| HEIGHT - BOTTOM - ms as f64 / high * (HEIGHT - BOTTOM - TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"11\"><title>Time of the migration by the size of the databases</title><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
    );
    for part in 0..=4_u32 {
        let ms = (high / 1.05 * f64::from(part) / 4.0) as u64;
        let at = y(ms);
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            human_ms(ms)
        );
    }
    for Prediction { bytes: size, took_ms, low_ms, high_ms, .. } in &scaling.predictions {
        let at = x(*size);
        let _ = write!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#b35c00\" stroke-width=\"2\"/>",
            y(*low_ms),
            y(*high_ms)
        );
        for end in [low_ms, high_ms] {
            let _ = write!(
                svg,
                "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{2:.1}\" y2=\"{2:.1}\" stroke=\"#b35c00\" stroke-width=\"2\"/>",
                at - 5.0,
                at + 5.0,
                y(*end)
            );
        }
        let _ = write!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\" fill=\"#b35c00\"/><text x=\"{at:.1}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
            at - 4.0,
            y(*took_ms) - 4.0,
            HEIGHT - 16.0,
            human_bytes(*size)
        );
    }
    let mut named = Vec::new();
    for Point { percent, bytes: size, took_ms, .. } in &scaling.points {
        let _ = write!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"none\" stroke=\"#0b62c4\" stroke-width=\"2\"/>",
            x(*size),
            y(*took_ms)
        );
        if !named.contains(percent) {
            named.push(*percent);
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#555\">{percent} %</text>",
                x(*size),
                HEIGHT - 4.0
            );
        }
    }
    svg.push_str("</svg>");
    svg
}
