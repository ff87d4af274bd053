//! Pure decisions: health verdicts, balancing, drain. State and time in, actions out
