//! One member: configuration, start order, admin service, reconciliation, metrics, shutdown
