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
set -eu

trestle pool create back --health tls --health-port 6443
trestle backend add back/k0s-controller1 10.0.0.1
trestle backend add back/k0s-controller2 10.0.0.2
trestle backend add back/k0s-controller3 10.0.0.3

trestle listener create kubeAPI --bind :6443 --pool back
trestle listener create konnectivityAgent --bind :8132 --pool back
trestle listener create konnectivityServer --bind :8133 --pool back
trestle listener create controllerJoinAPI --bind :9443 --pool back
