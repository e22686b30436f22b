//! A picture of measured times: how many requests were answered within which time, old and new.

use super::Pair;
use super::statistics::quantile;
use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 44.0;
const BOTTOM: f64 = 30.0;
const TOP: f64 = 24.0;
/// Points of a curve.
const POINTS: usize = 120;

/// An SVG image with both distributions; time on a logarithmic axis.
pub fn distribution(pairs: &[Pair]) -> String {
    let of = |new: bool| -> Vec<f64> {
        pairs.iter().map(|p| f64::from(if new { p.new_us } else { p.old_us }.max(1)) / 1000.0).collect()
    };
    let (old, new) = (of(false), of(true));
    let both: Vec<f64> = old.iter().chain(&new).copied().collect();
    let low = quantile(&both, 0.0).max(0.001);
    let high = quantile(&both, 0.999).max(low * 1.5);
    let x = |ms: f64| {
        let share = (ms.max(low).min(high) / low).ln() / (high / low).ln();
        LEFT + share * (WIDTH - LEFT - 12.0)
    };
    let y = |share: f64| HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"11\"><title>Share of requests answered within a time</title><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
    );
    for share in [0.0, 0.25, 0.5, 0.75, 0.95, 1.0] {
        let at = y(share);
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{:.0} %</text>",
            WIDTH - 12.0,
            LEFT - 6.0,
            at + 4.0,
            share * 100.0
        );
    }
    let mut tick = 10.0_f64.powf(low.log10().floor());
    while tick <= high * 1.01 {
        for step in [1.0, 2.0, 5.0] {
            let ms = tick * step;
            if ms >= low && ms <= high {
                let _ = write!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#555\">{ms} ms</text>",
                    x(ms),
                    HEIGHT - 10.0
                );
            }
        }
        tick *= 10.0;
    }
    // Told apart without colour, too: the old version's line is dashed.
    for (values, colour, dash, name, at) in [
        (&old, "#555555", " stroke-dasharray=\"5 3\"", "old", LEFT + 8.0),
        (&new, "#0b62c4", "", "new", LEFT + 60.0),
    ] {
        let mut line = String::new();
        for point in 0..=POINTS {
            let share = point as f64 / POINTS as f64;
            let _ = write!(line, "{:.1},{:.1} ", x(quantile(values, share)), y(share));
        }
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash} points=\"{}\"/><line x1=\"{at}\" x2=\"{:.0}\" y1=\"12\" y2=\"12\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/><text x=\"{:.0}\" y=\"16\" fill=\"#222\">{name}</text>",
            line.trim_end(),
            at + 18.0,
            at + 22.0
        );
    }
    svg.push_str("</svg>");
    svg
}
