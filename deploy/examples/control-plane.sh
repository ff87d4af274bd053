#!/bin/sh
# The load balancer of a highly available Kubernetes control plane, moved over from HAProxy's configuration:
#
#   frontend kubeAPI, konnectivityAgent, konnectivityServer, controllerJoinAPI
#       bind :6443, :8132, :8133, :9443;  default_backend back
#   backend back
#       server k0s-controller1 10.0.0.1 check port 6443 check-ssl verify none
#       (and so on: no port of its own, so each connection goes to the port it came in on)
#
# TRESTLE_ENDPOINT names the members: TRESTLE_ENDPOINT=10.0.0.11:7480,10.0.0.12:7480,10.0.0.13:7480
# It may be run again: what is there already as it says is left alone. It stops, with exit code 4 and what differs, where
# something else has the name; "trestle ... update" changes that.
set -eu

trestle pool create back --health tls --health-port 6443 --if-absent
trestle backend add back/k0s-controller1 10.0.0.1 --if-absent
trestle backend add back/k0s-controller2 10.0.0.2 --if-absent
trestle backend add back/k0s-controller3 10.0.0.3 --if-absent

trestle listener create kubeAPI --bind :6443 --pool back --if-absent
trestle listener create konnectivityAgent --bind :8132 --pool back --if-absent
trestle listener create konnectivityServer --bind :8133 --pool back --if-absent
trestle listener create controllerJoinAPI --bind :9443 --pool back --if-absent
