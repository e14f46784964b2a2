"""What runs on the host before an environment exists.

Standard library of Python >= 3.8 only, relative imports only: the folder travels as one zip file (`remote.agent`
builds it) and runs as `python FILE.pyz VERB NONCE`.  POSIX is taken for granted here, and nowhere else.
"""
