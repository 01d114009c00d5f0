# SPDX-License-Identifier: Apache-2.0
# ./dev builds and tests; here is only what guides for deployments call by this name.
.PHONY: generate-certs
generate-certs:
	build/codemode tls generate-certs --output certs
