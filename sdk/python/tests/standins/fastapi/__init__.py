# SPDX-License-Identifier: Apache-2.0
"""Stands in for FastAPI in the tests of the examples: routes by method and path."""


class FastAPI:
    def __init__(self):
        self.routes = {}

    def _route(self, method, path):
        def keep(function):
            self.routes[method, path] = function
            return function

        return keep

    def get(self, path):
        return self._route("GET", path)

    def post(self, path):
        return self._route("POST", path)
