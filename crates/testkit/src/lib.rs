//! Real processes for tests: clusters, web servers, clients; development only
