//! Pictures of trends: SVG images with one place per day or week. Where nothing was measured there is a gap, and never a zero.

use super::{Bucket, Spread, Trends, Width};
use crate::duration::human_ms;
use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 30.0;
/// Dates that find room below a picture.
const DATES: usize = 8;
/// Lines across a picture, besides the lowest.
const LINES: u64 = 4;
/// Distances between these lines in milliseconds that people count in: parts of seconds, then of minutes, hours and days.
const STEPS_MS: [u64; 30] = [
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    900_000,
    1_800_000,
    3_600_000,
    7_200_000,
    14_400_000,
    28_800_000,
    43_200_000,
    86_400_000,
    172_800_000,
    432_000_000,
    864_000_000,
];
/// Something that is counted: its name, its colour, how often it was.
type Kind = (&'static str, &'static str, fn(&Bucket) -> usize);
/// Told apart by place and name as well as by colour.
const KINDS: [Kind; 4] = [
    ("tried", "#7b8896", |b| b.rehearsed),
    ("refused", "#c97a08", |b| b.refused),
    ("promoted", "#2c7fb8", |b| b.promoted),
    ("rolled back", "#b0261c", |b| b.failed),
];

/// How many upgrades were tried, refused, promoted and rolled back. `None` where there were none.
pub fn upgrades(trends: &Trends) -> Option<String> {
    let all = trends.buckets.iter().flat_map(|b| KINDS.iter().map(|(.., of)| of(b)));
    let most = all.max().filter(|most| *most > 0)? as u64;
    let step = most.div_ceil(LINES);
    let mut picture = Picture::new(trends, "Upgrades", step, most.div_ceil(step), &|n| n.to_string());
    let wide = (picture.place() * 0.8 / KINDS.len() as f64).min(22.0);
    for (index, bucket) in trends.buckets.iter().enumerate() {
        let left = picture.x(index) - wide * KINDS.len() as f64 / 2.0;
        for (kind, (name, colour, of)) in KINDS.iter().enumerate() {
            let count = of(bucket);
            if count > 0 {
                let (x, y) = (left + wide * kind as f64, picture.y(count as f64));
                let height = HEIGHT - BOTTOM - y;
                let of = picture.name(index);
                let _ = write!(
                    picture.svg,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"><title>{of}: {count} {name}</title></rect>",
                    (wide - 1.0).max(1.0),
                );
            }
        }
    }
    picture.legend(&KINDS.map(|(name, colour, _)| (name, colour, Mark::Bar)));
    Some(picture.end())
}

/// Which share of promotions was rolled back. `None` where nothing was promoted.
pub fn failure_rate(trends: &Trends) -> Option<String> {
    let rates: Vec<Option<f64>> =
        trends.buckets.iter().map(|b| b.change_failure_rate.map(|r| r * 100.0)).collect();
    rates.iter().flatten().next()?;
    let percent = |n: f64| format!("{n:.0} %");
    let mut picture = Picture::new(trends, "Change failure rate", 25, LINES, &|n| percent(n as f64));
    picture.series(&rates, "#b0261c", Mark::Dot, &percent);
    picture.legend(&[("promotions that were rolled back", "#b0261c", Mark::Dot)]);
    Some(picture.end())
}

/// How long something took: the middle and the longest. `None` where it was never measured.
pub fn times(trends: &Trends, title: &str, of: fn(&Bucket) -> Option<Spread>) -> Option<String> {
    let spreads: Vec<Option<Spread>> = trends.buckets.iter().map(of).collect();
    let most = spreads.iter().flatten().map(|s| s.longest_ms).max()?.max(1);
    let step = STEPS_MS.into_iter().find(|step| step * LINES >= most).unwrap_or_else(|| most.div_ceil(LINES));
    let shown = |n: f64| human_ms(n.round() as u64);
    let mut picture = Picture::new(trends, title, step, most.div_ceil(step), &|n| shown(n as f64));
    let values = |of: fn(Spread) -> u64| -> Vec<Option<f64>> {
        spreads.iter().map(|s| s.map(|s| of(s) as f64)).collect()
    };
    picture.series(&values(|s| s.longest_ms), "#c97a08", Mark::Ring, &shown);
    picture.series(&values(|s| s.median_ms), "#2c7fb8", Mark::Dot, &shown);
    picture.legend(&[("median", "#2c7fb8", Mark::Dot), ("longest", "#c97a08", Mark::Ring)]);
    Some(picture.end())
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    Bar,
    Dot,
    Ring,
}

/// An image in the making: buckets from left to right, numbers from zero up.
struct Picture<'a> {
    trends: &'a Trends,
    highest: f64,
    svg: String,
}

impl<'a> Picture<'a> {
    /// With a line at every multiple of `step`, `lines` of them.
    fn new(trends: &'a Trends, title: &str, step: u64, lines: u64, number: &dyn Fn(u64) -> String) -> Self {
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"11\"><title>{title} per {}</title><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>",
            trends.width.as_str()
        );
        let mut picture = Self { trends, highest: (step * lines) as f64, svg };
        for line in 0..=lines {
            let y = picture.y((step * line) as f64);
            let _ = write!(
                picture.svg,
                "<line x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                number(step * line)
            );
        }
        let every = trends.buckets.len().div_ceil(DATES).max(1);
        for (index, bucket) in trends.buckets.iter().enumerate().step_by(every) {
            let _ = write!(
                picture.svg,
                "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
                picture.x(index),
                HEIGHT - 10.0,
                day(bucket.period.from_ms)
            );
        }
        picture
    }

    /// The room that each bucket has.
    fn place(&self) -> f64 {
        (WIDTH - LEFT - RIGHT) / self.trends.buckets.len().max(1) as f64
    }

    fn x(&self, index: usize) -> f64 {
        LEFT + (index as f64 + 0.5) * self.place()
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.highest * (HEIGHT - BOTTOM - TOP)
    }

    fn name(&self, index: usize) -> String {
        let from = self.trends.buckets.get(index).map_or_else(String::new, |b| day(b.period.from_ms));
        match self.trends.width {
            Width::Day => from,
            Width::Week => format!("week from {from}"),
        }
    }

    /// Marks, and a line from each to the next unless there is nothing in between.
    fn series(&mut self, values: &[Option<f64>], colour: &str, mark: Mark, shown: &dyn Fn(f64) -> String) {
        let indexed: Vec<(usize, Option<f64>)> = values.iter().copied().enumerate().collect();
        let dash = if mark == Mark::Ring { " stroke-dasharray=\"5 3\"" } else { "" };
        for row in indexed.chunk_by(|a, b| a.1.is_some() && b.1.is_some()) {
            let points: Vec<(usize, f64)> = row.iter().filter_map(|(i, v)| Some((*i, (*v)?))).collect();
            if points.len() > 1 {
                let line: Vec<String> =
                    points.iter().map(|(i, v)| format!("{:.1},{:.1}", self.x(*i), self.y(*v))).collect();
                let _ = write!(
                    self.svg,
                    "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash} points=\"{}\"/>",
                    line.join(" ")
                );
            }
            for (index, value) in points {
                let (x, y, name) = (self.x(index), self.y(value), self.name(index));
                let _ = write!(
                    self.svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{}\" stroke=\"{colour}\" stroke-width=\"2\"><title>{name}: {}</title></circle>",
                    if mark == Mark::Ring { "#fff" } else { colour },
                    shown(value)
                );
            }
        }
    }

    fn legend(&mut self, entries: &[(&str, &str, Mark)]) {
        let mut x = LEFT;
        for (name, colour, mark) in entries {
            let _ = match mark {
                Mark::Bar => write!(
                    self.svg,
                    "<rect x=\"{x:.0}\" y=\"8\" width=\"10\" height=\"10\" fill=\"{colour}\"/>"
                ),
                _ => write!(
                    self.svg,
                    "<circle cx=\"{:.0}\" cy=\"13\" r=\"4\" fill=\"{}\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                    x + 5.0,
                    if *mark == Mark::Ring { "#fff" } else { colour }
                ),
            };
            let _ = write!(self.svg, "<text x=\"{:.0}\" y=\"17\" fill=\"#222\">{name}</text>", x + 15.0);
            // About the width of a letter at this size, and room to the next.
            x += 15.0 + name.len() as f64 * 6.2 + 18.0;
        }
    }

    fn end(mut self) -> String {
        self.svg.push_str("</svg>");
        self.svg
    }
}

fn day(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| ms.to_string(), |t| t.strftime("%Y-%m-%d").to_string())
}
