# SPDX-License-Identifier: Apache-2.0
class BaseTool:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def run(self, *args, **kwargs):
        return self._run(*args, **kwargs)
