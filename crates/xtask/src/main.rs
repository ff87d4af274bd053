//! Project chores: verify what CI verifies, fix what can be fixed, measure
fn main() {}
