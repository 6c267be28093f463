"""The limits of what any service counts."""

from pydantic import Field
from pydantic_settings import BaseSettings


class QuotaSettings(BaseSettings):
    """How much one client may use; 0 is no limit."""

    limit_requests: int = Field(default=3000, ge=0, description="A minute")
    limit_streams: int = Field(default=200, ge=0, description="At once")
