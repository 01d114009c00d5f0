# SPDX-License-Identifier: Apache-2.0
"""A session keeps its variables. Needs a sidecar at WASM_MANAGER_SERVICE_URL (http://localhost:8080)."""

import asyncio
from rlm.remote import create_sidecar_repl_factory

async def test_state():
    factory = create_sidecar_repl_factory()
    
    # Create session
    session_id = await factory.create_session()
    
    try:
        # Step 1: Define variable
        await factory.execute_in_session(session_id, "x = 42")
        
        # Step 2: Use variable (persists!)
        result = await factory.execute_in_session(session_id, "x * 2")
        print(f"Result: {result}")  # Output: 84
        
        # Step 3: Modify variable
        await factory.execute_in_session(session_id, "x = x + 10")
        
        # Step 4: Verify change (persists!)
        result = await factory.execute_in_session(session_id, "x")
        print(f"New x: {result}")  # Output: 52
    
    finally:
        # Cleanup session
        await factory.delete_session(session_id)

# Run
asyncio.run(test_state())
