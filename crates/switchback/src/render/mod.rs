//! Stub.
use switchback_core::report::Report;
pub fn html(_: &Report) -> String {
    String::new()
}
pub fn markdown(_: &Report) -> String {
    String::new()
}
pub fn junit(_: &Report) -> String {
    String::new()
}
pub fn terminal(r: &Report, _: bool, _: usize) -> String {
    format!("{}\n{}\n{:?}\n", r.headline, r.production, r.reasons)
}
