//! Listening, relaying and probing; one published table that every worker reads without a lock
