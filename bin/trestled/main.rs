//! trestled
fn main() {}
